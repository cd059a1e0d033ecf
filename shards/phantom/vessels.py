"""The vessel tree: branching lines from each hilum, the same for a patient in every picture."""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray

from .curves import Points

GENERATIONS = 6


@functools.lru_cache(maxsize=64)
def tree(seed: int) -> tuple[tuple[NDArray[np.float64], NDArray[np.bool_]], ...]:
    """Branches per generation for a lung whose hilum is at the origin and which reaches to about 1 in all directions.

    Returns, per generation, lines (N, 5, 2) with x towards the chest wall and y down, and which of them (N,) go up.
    """
    rng = np.random.default_rng(seed)
    roots = 9
    angle = np.linspace(-1.45, 1.55, roots) + rng.normal(0, 0.1, roots)
    start = np.stack([0.05 * np.cos(angle), 0.12 * np.sin(angle)], axis=1)
    upward = angle < -0.25
    length = 0.36 * rng.uniform(0.8, 1.2, roots)
    levels = []
    for generation in range(GENERATIONS):
        bow = rng.normal(0, 0.14, len(angle))
        t = np.linspace(0, 1, 5)
        heading = angle[:, None] + bow[:, None] * (t - 0.5)[None] * 2
        step = length[:, None, None] / 4 * np.stack([np.cos(heading), np.sin(heading)], axis=-1)
        lines = start[:, None, :] + np.concatenate(
            [np.zeros_like(step[:, :1]), np.cumsum(step[:, :-1], axis=1)], axis=1
        )
        levels.append((lines, upward))
        if generation == GENERATIONS - 1:
            break
        fork = np.abs(rng.normal(0.42, 0.12, len(angle)))
        share = rng.uniform(0.3, 0.7, len(angle))
        angle = np.concatenate([angle - fork * share, angle + fork * (1 - share)])
        angle = angle + 0.08 * np.sin(angle)  # branches spread out, away from the horizontal
        start = np.concatenate([lines[:, -1], lines[:, -1]])
        upward = np.concatenate([upward, upward])
        length = np.concatenate([length, length]) * rng.uniform(0.55, 0.85, len(angle))
    return tuple(levels)


def place(
    lines: NDArray[np.float64], hilum: NDArray[np.float64], reach: tuple[float, float, float], side: int
) -> Points:
    """Branches (N, 5, 2) into the lung: `reach` = distance from hilum to wall, to apex and to diaphragm."""
    x = hilum[0] + side * lines[..., 0] * reach[0]
    y = hilum[1] + np.where(lines[..., 1] < 0, lines[..., 1] * reach[1], lines[..., 1] * reach[2])
    return np.stack([x, y], axis=-1)
