"""The vessel tree: branching lines from each hilum, the same for a patient in every image."""

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
    # Few large branches run sideways; most climb to the upper lobe or fall to the base.
    angle = np.array([-1.5, -1.15, -0.8, -0.25, 0.3, 0.75, 1.05, 1.3, 1.6]) + rng.normal(0, 0.14, 9)
    start = np.stack([0.10 * np.cos(angle), 0.16 * np.sin(angle)], axis=1) + rng.normal(0, 0.03, (9, 2))
    upward = angle < -0.05
    length = 0.30 * rng.uniform(0.65, 1.25, 9)
    levels = []
    for generation in range(GENERATIONS):
        bow = rng.normal(0, 0.26, len(angle))
        t = np.linspace(0, 1, 5)
        heading = angle[:, None] + bow[:, None] * (t - 0.5)[None] * 2
        step = length[:, None, None] / 4 * np.stack([np.cos(heading), np.sin(heading)], axis=-1)
        lines = start[:, None, :] + np.concatenate(
            [np.zeros_like(step[:, :1]), np.cumsum(step[:, :-1], axis=1)], axis=1
        )
        levels.append((lines, upward))
        if generation == GENERATIONS - 1:
            break
        fork = np.abs(rng.normal(0.55, 0.22, len(angle)))
        share = rng.uniform(0.15, 0.85, len(angle))
        angle = np.concatenate([angle - fork * share, angle + fork * (1 - share)])
        angle = angle + 0.08 * np.sin(angle)  # branches spread out, away from the horizontal
        start = np.concatenate([lines[:, -1], lines[:, -1]])
        upward = np.concatenate([upward, upward])
        length = np.concatenate([length, length]) * rng.uniform(0.5, 0.95, len(angle))
    return tuple(levels)


def place(
    lines: NDArray[np.float64], hilum: NDArray[np.float64], reach: tuple[float, float, float], side: int
) -> Points:
    """Branches (N, 5, 2) into the lung: `reach` = distance from hilum to wall, to apex and to diaphragm."""
    x = hilum[0] + side * lines[..., 0] * reach[0]
    y = hilum[1] + np.where(lines[..., 1] < 0, lines[..., 1] * reach[1], lines[..., 1] * reach[2])
    return np.stack([x, y], axis=-1)
