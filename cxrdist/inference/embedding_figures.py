"""Figures of a comparison of encoders: their maps side by side, and how alike they are.

Shapes: n images, K encoders.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from results.figures.style import COLOURS, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Maps = dict[tuple[str, str], tuple[np.ndarray, str]]
"""(method, encoder) -> map (n, 2), and a line on what its axes mean."""

TITLES = {"pca": "PCA", "tsne": "t-SNE", "umap": "UMAP"}
_UNKNOWN = "not known"


def draw_maps(maps: Maps, target: str, classes: np.ndarray, scores: Mapping[str, float], where: str) -> Figure:
    """One row per method, one column per encoder.

    Args:
        maps: what to draw.
        target: what dots are coloured by.
        classes: its value for each image, object (n,), None where not known.
        scores: AUROC of a linear probe for the target, by encoder.
        where: dataset, split and number of images.
    """
    from matplotlib.figure import Figure

    methods, names = list(dict.fromkeys(m for m, _ in maps)), list(dict.fromkeys(n for _, n in maps))
    with styled():
        figure = Figure(figsize=(2.3 * len(names) + 0.5, 2.2 * len(methods) + 1.0), layout="constrained")
        axes: Any = figure.subplots(len(methods), len(names), squeeze=False)
        for i, method in enumerate(methods):
            for j, name in enumerate(names):
                axis, (flat, note) = axes[i, j], maps[method, name]
                _scatter(axis, flat, classes)
                axis.set(xticks=[], yticks=[])
                axis.grid(visible=False)
                if method == "pca":
                    axis.set_xlabel(_shares(note), fontsize=7)
                if i == 0:
                    score = scores.get(name)
                    axis.set_title(name if score is None else f"{name}\nprobe AUROC {score:.3f}")
            axes[i, 0].set_ylabel(TITLES.get(method, method))
        figure.suptitle(f"{target}: {where}", fontsize=10)
        handles, labels = axes[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=min(6, len(labels)))
    return figure


def _shares(note: str) -> str:
    """The two shares of variance in a line such as `principal components 1 (40% of the variance) and 2 (9%)`."""
    first, _, second = note.partition(" of the variance)")
    return f"{first.rpartition('(')[2]} and {second.rpartition('(')[2].rstrip(')')} of the variance"


def _scatter(axis: Any, flat: np.ndarray, classes: np.ndarray) -> None:
    """Dots in one order for all maps: at random, so that no class covers another."""
    named = sorted({value for value in classes if value is not None})
    colours = {None: "#bbbbbb"} | {name: COLOURS[place % len(COLOURS)] for place, name in enumerate(named)}
    order = np.random.default_rng(0).permutation(len(flat))
    axis.scatter(flat[order, 0], flat[order, 1], s=4, c=[colours[value] for value in classes[order]], alpha=0.7, lw=0)
    shown = [*named, None] if any(value is None for value in classes) else named
    for name in shown:
        axis.scatter([], [], s=18, color=colours[name], label=_UNKNOWN if name is None else name)


def draw_cka(names: Sequence[str], cka: np.ndarray, where: str) -> Figure:
    """Linear CKA (K, K) between encoders as a matrix of numbers."""
    from matplotlib.figure import Figure

    side = 0.75 * len(names) + 1.6
    with styled():
        figure = Figure(figsize=(side + 0.4, side), layout="constrained")
        axis = figure.add_subplot()
        axis.imshow(cka, cmap="Blues", vmin=0, vmax=1)
        axis.grid(visible=False)
        places = range(len(names))
        axis.set_xticks(places, names, rotation=35, ha="right", rotation_mode="anchor")
        axis.set_yticks(places, names)
        for i in places:
            for j in places:
                text = "\u2013" if np.isnan(cka[i, j]) else f"{cka[i, j]:.2f}"
                axis.text(j, i, text, ha="center", va="center", color="white" if cka[i, j] > 0.6 else "black")
        axis.set_title(f"Linear CKA\n{where}")
    return figure
