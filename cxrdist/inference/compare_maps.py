"""One figure that compares heat maps: the same images for all runs, as X-ray, X-ray with map, and map alone.

Shapes: S side of a model's input, V side of the images drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cxrdist.errors import InputError
from cxrdist.inference.explain import Explainer, Explanation
from cxrdist.inference.pointing_game import Box, read_boxes
from cxrdist.inference.tested_run import TestedRun
from results.figures.style import save, styled
from shards import ShardSet

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PICKS = ("tp", "fp", "fn", "tn", "uncertain")
FORMATS = (".png", ".pdf")
VIEW = 256
"""V at most."""


@dataclass(frozen=True, kw_only=True)
class Picked:
    """One image of the figure."""

    position: int
    """In the split."""
    key: str
    """Of the sample."""
    why: str
    """What it was picked as, or "" for a key that was asked for."""


def pick(run: TestedRun, label: str, wanted: Sequence[str]) -> list[tuple[str, str]]:
    """Keys to show, each with what it is: the clearest example of each kind by one run's scores.

    tp and fp are the highest scores among true and false positives, fn and tn the lowest among false and true
    negatives, uncertain the nearest to the threshold. A kind named twice gives its two clearest.

    Args:
        run: whose predictions and threshold count (0.5 where it has none).
        label: the label.
        wanted: of `PICKS`.

    Raises:
        InputError: an unknown kind, or fewer such images than asked for.
    """
    matrix, threshold = run.matrix.only([label]), run.thresholds.get(label)
    truth, score = matrix.truth[:, 0], matrix.score[:, 0]
    limit = 0.5 if threshold is None else threshold
    called, known = score >= limit, truth >= 0
    groups = {
        "tp": (known & (truth == 1) & called, -score),
        "fp": (known & (truth == 0) & called, -score),
        "fn": (known & (truth == 1) & ~called, score),
        "tn": (known & (truth == 0) & ~called, score),
        "uncertain": (known, np.abs(score - limit)),
    }
    taken: dict[str, list[int]] = {}
    found = []
    for kind in wanted:
        if kind not in groups:
            raise InputError(f"--pick {kind!r}: must be {', '.join(PICKS)}, separated by commas")
        among, order = groups[kind]
        rows = [int(i) for i in np.argsort(order, kind="stable") if among[i]]
        before = taken.setdefault(kind, [])
        if len(before) >= len(rows):
            raise InputError(
                f"--pick {kind}: {run.name} has {len(rows)} such images of {label} at threshold {limit:.3f}; "
                "leave it out or take another label"
            )
        before.append(rows[len(before)])
        found.append((str(matrix.keys[before[-1]]), kind))
    return found


def chosen(shards: ShardSet, keys: Sequence[tuple[str, str]]) -> list[Picked]:
    """Keys as places in the split.

    Raises:
        InputError: one that the split does not hold.
    """
    place = {key: i for i, key in enumerate(shards.index.keys(shards.rows).tolist())}
    for key, _ in keys:
        if key not in place:
            raise InputError(f"--keys {key}: no such sample in split {shards.split} of {shards.path}")
    return [Picked(position=place[key], key=key, why=why) for key, why in keys]


def compare(
    runs: Sequence[TestedRun],
    explainers: Sequence[Explainer],
    shards: ShardSet,
    label: str,
    picked: Sequence[Picked],
    out: Path,
) -> None:
    """Write the figure (PNG or PDF); see `draw`."""
    positions = np.array([one.position for one in picked])
    images = shards.images(positions, min(VIEW, shards.card.image_size))[:, 0].numpy()
    found = []
    for explainer in explainers:
        small = shards.images(positions, explainer.encoder.image_size)
        scores = explainer.encoder.scores(small)
        found.append([explainer.explain(one, [label], row) for one, row in zip(small, scores, strict=True)])
    boxes = read_boxes(shards)
    own = [[box for box in boxes.get(one.key, []) if box.label == label] for one in picked]
    save(draw(runs, label, picked, images, found, own), out)


def draw(
    runs: Sequence[TestedRun],
    label: str,
    picked: Sequence[Picked],
    images: np.ndarray,
    found: Sequence[Sequence[Explanation]],
    boxes: Sequence[Sequence[Box]],
) -> Figure:
    """Columns are images; rows the X-ray, then for each run the X-ray under its map, and the map with its score.

    With one image and several runs, columns are the runs.

    Args:
        runs: for names, truths and thresholds.
        label: what is explained.
        picked: the images.
        images: uint8 (images, V, V).
        found: per run and image its map.
        boxes: per image, drawn dashed.
    """
    from matplotlib.figure import Figure

    by_run = len(picked) == 1 and len(runs) > 1
    across = len(runs) if by_run else len(picked)
    down = 3 if by_run else 1 + 2 * len(runs)
    with styled():
        figure = Figure(figsize=(1.75 * across + 0.6, 1.85 * down + 0.4), layout="constrained")
        axes: Any = figure.subplots(down, across, squeeze=False)
        for axis in axes.flat:
            axis.set(xticks=[], yticks=[])
            axis.grid(visible=False)
            axis.spines[:].set_visible(False)
        for k, run in enumerate(runs):
            for i, one in enumerate(picked):
                column = k if by_run else i
                first = 1 if by_run else 1 + 2 * k
                _xray(axes[0, column], images[i], boxes[i])
                _column_title(axes[0, column], one, run if by_run else runs[0], label, name=by_run)
                _overlay(axes[first, column], images[i], found[k][i].heat[label], boxes[i])
                _alone(axes[first + 1, column], found[k][i], run, label)
                if column == 0:
                    title = "" if by_run or len(runs) == 1 else f"{run.name}\n"
                    axes[0, 0].set_ylabel("X-ray")
                    axes[first, 0].set_ylabel(f"{title}X-ray and map")
                    axes[first + 1, 0].set_ylabel(f"{title}map")
        figure.suptitle(f"{label}: {runs[0].matrix.dataset}, {runs[0].matrix.split}", fontsize=10)
    return figure


def _column_title(axis: Any, one: Picked, run: TestedRun, label: str, *, name: bool) -> None:
    (found,) = np.nonzero(run.matrix.keys == one.key)
    value = int(run.matrix.only([label]).truth[found[0], 0]) if len(found) else -1
    truth = {1: "positive", 0: "negative"}.get(value, "not known")
    key = one.key if len(one.key) <= 24 else f"{one.key[:11]}...{one.key[-10:]}"
    lines = [run.name] if name else []
    axis.set_title("\n".join([*lines, key, f"{one.why + ', ' if one.why else ''}truth {truth}"]), fontsize=7)


def _xray(axis: Any, image: np.ndarray, boxes: Sequence[Box]) -> None:
    from matplotlib.patches import Rectangle

    axis.imshow(image, cmap="gray", vmin=0, vmax=255, extent=(0, 1, 1, 0))
    for box in boxes:
        edges = ((box.left, box.top), box.right - box.left, box.bottom - box.top)
        axis.add_patch(Rectangle(*edges, fill=False, edgecolor="white", linewidth=0.9, linestyle="--"))


def _overlay(axis: Any, image: np.ndarray, heat: np.ndarray, boxes: Sequence[Box]) -> None:
    _xray(axis, image, boxes)
    share = heat / max(float(heat.max()), 1e-12)
    axis.imshow(
        share,
        cmap="jet",
        vmin=0,
        vmax=1,
        alpha=0.6 * np.clip(share, 0, 1),
        extent=(0, 1, 1, 0),
        interpolation="bilinear",
    )


def _alone(axis: Any, found: Explanation, run: TestedRun, label: str) -> None:
    heat = found.heat[label]
    axis.imshow(heat, cmap="jet", vmin=0, vmax=max(float(heat.max()), 1e-12), extent=(0, 1, 1, 0))
    limit = run.thresholds.get(label)
    against = "" if limit is None else f" ({'≥' if found.scores[label] >= limit else '<'} {limit:.3f})"
    axis.set_xlabel(f"score {found.scores[label]:.3f}{against}", fontsize=7)
