"""How far a pretraining has come."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass
class TrainingState:
    """Where a run stands; saved with every checkpoint."""

    step: int = 0
    """Optimiser steps done."""
    seconds: float = 0.0
    """Wall time of all attempts that led here."""
    evaluated: int = 0
    """Step of the latest evaluation."""
    best_loss: float = math.inf
    """Lowest validation loss."""
    best_step: int = 0
    """Its step; 0: none yet."""
    without_gain: int = 0
    """Evaluations since then."""
    order_sha256: str = ""
    """Hash over the positions of all global batches so far: equal for runs that saw the same samples in order."""
