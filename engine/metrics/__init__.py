"""Figures of merit as pure functions of arrays: labels are 1 = finding present, 0 = absent; a higher score means more likely present."""
