"""The correction of p values for being many."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def holm(p_values: Sequence[float]) -> list[float]:
    """P values corrected for being many (Holm 1979), in the order given; each is compared with alpha itself."""
    order = np.argsort(p_values, kind="stable")
    corrected = np.empty(len(order))
    running = 0.0
    for rank, place in enumerate(order):
        running = max(running, (len(order) - rank) * p_values[place])
        corrected[place] = min(1.0, running)
    return corrected.tolist()
