"""How each finding is drawn."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from . import around_lung, in_lung
from .canvas import Map
from .findings import Finding
from .layers import Layers

Drawing = Callable[[Finding, Layers, np.random.Generator], Map]
"""Changes the maps of a chest and returns where the finding can be seen, 0..1."""

DRAWINGS: dict[str, Drawing] = {
    "cardiomegaly": around_lung.cardiomegaly,
    "enlarged_cardiomediastinum": around_lung.wide_mediastinum,
    "pleural_effusion": around_lung.effusion,
    "pneumothorax": around_lung.pneumothorax,
    "nodule": in_lung.nodule,
    "mass": in_lung.mass,
    "consolidation": in_lung.consolidation,
    "pneumonia": in_lung.pneumonia,
    "infiltration": in_lung.infiltration,
    "edema": in_lung.edema,
    "atelectasis": in_lung.atelectasis,
    "emphysema": in_lung.emphysema,
    "fibrosis": in_lung.fibrosis,
    "hernia": around_lung.hernia,
    "pleural_thickening": around_lung.thickening,
    "fracture": around_lung.fracture,
}
"""How each finding is drawn. Order of drawing: as listed here, so that an image does not depend on a list's order."""
