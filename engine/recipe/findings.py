"""Findings by the names that prompts, tables and published labels share."""

from __future__ import annotations

CHEXPERT_FINDINGS = (
    "No Finding",
    "Enlarged Cardiomediastinum",
    "Cardiomegaly",
    "Lung Opacity",
    "Lung Lesion",
    "Edema",
    "Consolidation",
    "Pneumonia",
    "Atelectasis",
    "Pneumothorax",
    "Pleural Effusion",
    "Pleural Other",
    "Fracture",
    "Support Devices",
)
"""The 14 of CheXpert (arXiv 1901.07031), in the order of its training table."""

NIH_FINDINGS = (
    "Atelectasis",
    "Cardiomegaly",
    "Consolidation",
    "Edema",
    "Pleural Effusion",
    "Emphysema",
    "Fibrosis",
    "Hernia",
    "Infiltration",
    "Mass",
    "Nodule",
    "Pleural Thickening",
    "Pneumonia",
    "Pneumothorax",
)
"""The 14 of ChestX-ray14 (arXiv 1705.02315); its "Effusion" and "Pleural_Thickening" are spelled as prompts spell them."""

NIH_SPELLED = {"Effusion": "Pleural Effusion", "Pleural_Thickening": "Pleural Thickening", "Infiltrate": "Infiltration"}
"""Findings that NIH's tables spell otherwise than prompts do; "Infiltrate" stands in the table of boxes only."""

PADCHEST_SEEN = (
    "Atelectasis",
    "Cardiomegaly",
    "Consolidation",
    "Edema",
    "Fracture",
    "Pleural Effusion",
    "Pneumonia",
    "Pneumothorax",
)
"""The eight findings of PadChest that the pretraining reports speak of too (MMCLIP, Table I)."""
