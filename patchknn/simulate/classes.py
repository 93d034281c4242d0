"""The nine tissue classes of NCT-CRC-HE-100K: names, meanings and display colours."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TissueClass:
    """One class: the short name that labels carry, what it is, and its colour in QuPath (RGB)."""

    name: str
    meaning: str
    colour: tuple[int, int, int]


TISSUE_CLASSES = (
    TissueClass("ADI", "adipose tissue", (245, 200, 66)),
    TissueClass("BACK", "background", (160, 160, 160)),
    TissueClass("DEB", "debris", (140, 86, 40)),
    TissueClass("LYM", "lymphocytes", (52, 84, 209)),
    TissueClass("MUC", "mucus", (84, 190, 214)),
    TissueClass("MUS", "smooth muscle", (214, 84, 120)),
    TissueClass("NORM", "normal colon mucosa", (70, 170, 90)),
    TissueClass("STR", "cancer-associated stroma", (240, 130, 180)),
    TissueClass("TUM", "colorectal adenocarcinoma epithelium", (130, 40, 150)),
)
CLASS_NAMES = tuple(entry.name for entry in TISSUE_CLASSES)
