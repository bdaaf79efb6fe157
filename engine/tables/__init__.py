"""The tables that verbs exchange: their columns, how they are published whole, who may write them, and who is who in them."""
