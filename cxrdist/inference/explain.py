"""`cxrdist explain`: heat maps of a fine-tuned model as images, and their pointing game against boxes.

Shapes: S side in pixels, L labels, n samples.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from cxrdist.errors import InputError
from cxrdist.inference import heatmaps
from cxrdist.inference.network import Encoder, batches, learnt_labels
from cxrdist.inference.pointing_game import Box, covered, energy, interval, is_hit, peak, read_boxes
from results import atomic
from shards import ShardSet
from shards.labels import POSITIVE
from shards.progress import Progress

METHODS = (*heatmaps.CAMS, "occlusion")
MARKER = "explain.json"
_SIDE = 320  # pixels of one panel


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """Maps of one image for some labels."""

    position: int
    """In the split."""
    image: np.ndarray
    """uint8 (S, S)."""
    scores: dict[str, float]
    """Probability per label."""
    heat: dict[str, np.ndarray]
    """Map float32 (S, S) per label."""


class Explainer:
    """Makes maps with one method.

    Args:
        encoder: holding a fine-tuned model.
        method: one of `heatmaps.CAMS`, or occlusion.
        layer: of class activation maps; None = see `heatmaps.pick_layer`.
        patch: of occlusion, pixels; None = an eighth of the image.
    """

    def __init__(self, encoder: Encoder, method: str, layer: str | None = None, patch: int | None = None):
        if method not in METHODS:
            raise InputError(f"method {method!r} is unknown; use {', '.join(METHODS)}")
        assert encoder.classifier is not None
        self.encoder, self.network, self.method, self.patch = encoder, encoder.classifier, method, patch
        self.layer = None if method == "occlusion" else heatmaps.pick_layer(self.network, layer)

    def explain(self, image: torch.Tensor, labels: Sequence[str], scores: np.ndarray, position: int = 0) -> Explanation:
        """Maps of one uint8 image (1, S, S), whose probabilities are `scores` (L,), for the given labels."""
        columns = [self.network.facts["labels"].index(name) for name in labels]
        pixels = self.encoder.pixels(image[None])
        if self.layer is not None:
            cells = heatmaps.class_maps(self.network, pixels, columns, self.layer, self.method)[:, 0]
            maps = list(heatmaps.grown(cells, pixels.shape[-1]))
        else:
            maps = list(heatmaps.occlusion(self.network, pixels, columns, patch=self.patch))
        return Explanation(
            position=position,
            image=image[0].numpy(),
            scores={name: float(scores[column]) for name, column in zip(labels, columns, strict=True)},
            heat=dict(zip(labels, maps, strict=True)),
        )

    def untrained(self) -> Explainer:
        """The same method on the same network with weights drawn anew: what a map shows without any learning."""
        assert self.encoder.classifier is not None
        whole = heatmaps.untrained(self.encoder.classifier)
        encoder = dataclasses.replace(self.encoder, classifier=whole, module=whole.backbone)
        return Explainer(encoder, self.method, self.layer, self.patch)

    def over(self, shards: ShardSet, wanted: dict[int, list[str]], title: str) -> Iterator[Explanation]:
        """Explain positions of a split for the labels wanted of each."""
        positions = np.array(sorted(wanted), dtype=np.int64)
        with Progress(len(positions), title, unit="image") as bar:
            for chunk, images in batches(shards, positions, self.encoder.image_size):
                scores = self.encoder.scores(images)
                for position, image, row in zip(chunk.tolist(), images, scores, strict=True):
                    yield self.explain(image, wanted[position], row, position)
                    bar.add(1)


def choose(encoder: Encoder, shards: ShardSet, labels: Sequence[str], count: int) -> dict[int, list[str]]:
    """For each label the positive samples with the highest scores: position -> labels. At most `count` per label."""
    assert encoder.classifier is not None
    wanted: dict[int, list[str]] = {}
    for label in labels:
        if label not in shards.labels:
            continue
        positive = np.flatnonzero(shards.index.label(label)[shards.rows] == POSITIVE)[:4096]
        if not len(positive):
            continue
        column = encoder.classifier.facts["labels"].index(label)
        parts = [encoder.scores(images)[:, column] for _, images in batches(shards, positive, encoder.image_size)]
        for position in positive[np.argsort(-np.concatenate(parts), kind="stable")[:count]].tolist():
            wanted.setdefault(position, []).append(label)
    return wanted


def panel(found: Explanation, label: str, key: str, truth: str, boxes: Sequence[Box]) -> np.ndarray:
    """Image beside image with its map (hot = red) and the label's boxes: uint8 BGR (_SIDE + 24, 2 * _SIDE, 3)."""
    grey = cv2.resize(found.image, (_SIDE, _SIDE), interpolation=cv2.INTER_CUBIC)
    plain = cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR)
    heat = cv2.resize(found.heat[label], (_SIDE, _SIDE), interpolation=cv2.INTER_LINEAR)
    share = np.clip(heat / max(float(heat.max()), 1e-12), 0, 1)
    colour = cv2.applyColorMap((share * 255).astype(np.uint8), cv2.COLORMAP_JET).astype(np.float32)
    weight = (0.55 * share)[..., None]
    mixed = (plain * (1 - weight) + colour * weight).astype(np.uint8)
    for box in boxes:
        corner, far = (int(box.left * _SIDE), int(box.top * _SIDE)), (int(box.right * _SIDE), int(box.bottom * _SIDE))
        cv2.rectangle(mixed, corner, far, (255, 255, 255), 1, cv2.LINE_AA)
    point = peak(found.heat[label])
    if point is not None:
        cv2.drawMarker(mixed, (int(point[0] * _SIDE), int(point[1] * _SIDE)), (255, 255, 255), cv2.MARKER_CROSS, 12, 1)
    strip = np.zeros((24, 2 * _SIDE, 3), np.uint8)
    text = f"{label}  score {found.scores[label]:.3f}  truth {truth}  {key}"
    cv2.putText(strip, text[:90], (6, 16), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (255, 255, 255), 1, cv2.LINE_AA)
    return np.vstack([np.hstack([plain, mixed]), strip])


def labels_for(run: str, encoder: Encoder, asked: Sequence[str] | None) -> list[str]:
    """Labels to explain: those asked for, or all that the run has learnt.

    Raises:
        InputError: one that the run does not know.
    """
    assert encoder.classifier is not None
    learnt = learnt_labels(run, encoder.classifier)
    for name in asked or ():
        if name not in learnt:
            raise InputError(f"{run} has not learnt the label {name!r}; it has learnt {', '.join(learnt)}")
    return list(asked) if asked else learnt


def write_panels(
    explainer: Explainer, shards: ShardSet, labels: Sequence[str], count: int, out: Path, boxes: dict[str, list[Box]]
) -> int:
    """Write out/LABEL/RANK-KEY.png for each label's best-scored positives; return how many."""
    wanted = choose(explainer.encoder, shards, labels, count)
    written = 0
    for found in explainer.over(shards, wanted, "heat maps"):
        row = int(shards.rows_at(np.array([found.position]))[0])
        key = shards.index.key(row)
        for label in found.heat:
            own = [box for box in boxes.get(key, []) if box.label == label]
            done, data = cv2.imencode(".png", panel(found, label, key, "positive", own))
            assert done
            atomic.write_bytes(out / label / f"{found.scores[label]:.3f}-{key}.png", data.tobytes())
            written += 1
    return written


def pointing_game(
    explainer: Explainer, shards: ShardSet, labels: Sequence[str], boxes: dict[str, list[Box]], limit: int | None
) -> tuple[pa.Table, dict[str, Any]]:
    """Hit rates of the maps' hottest points over all samples of the split that have boxes of a label.

    Args:
        explainer: makes the maps.
        shards: one split.
        labels: those that may be scored.
        boxes: see `read_boxes`.
        limit: most samples per label (the first in the order of the split); None = all.

    Returns:
        One row per sample and label (see `POINTS`), and per label hits, n, rate, its 95 % interval by patients, energy
        (mean share of a map inside the boxes), chance (mean share of the view inside them), and random_rate and
        random_energy of the same network with weights drawn anew (the sanity check of Adebayo et al. 2018: maps that
        score alike show the images, not what was learnt).
    """
    wanted = _boxed(shards, labels, boxes, limit)
    rows: list[dict[str, Any]] = []
    without = explainer.untrained().over(shards, wanted, "with random weights")
    for found, random in zip(explainer.over(shards, wanted, "pointing game"), without, strict=True):
        row = shards.rows_at(np.array([found.position]))
        key, patient = shards.index.key(int(row[0])), str(shards.index.patient_id(row)[0])
        for label, heat in found.heat.items():
            own = [box for box in boxes[key] if box.label == label]
            x, y = peak(heat) or (None, None)
            rows.append(
                {"key": key, "patient_id": patient, "label": label, "score": found.scores[label]}
                | {"hit": is_hit(heat, own), "x": x, "y": y, "box_share": covered(own), "energy": energy(heat, own)}
                | {"random_hit": is_hit(random.heat[label], own), "random_energy": energy(random.heat[label], own)}
            )
    summary = {}
    for label in labels:
        own = [row for row in rows if row["label"] == label]
        if own:
            hits = np.array([row["hit"] for row in own])
            low, high = interval(hits, np.array([row["patient_id"] for row in own]))
            summary[label] = {"hits": int(hits.sum()), "n": len(own), "rate": float(hits.mean())}
            summary[label] |= {"ci_low": low, "ci_high": high}
            means = {"chance": "box_share", "energy": "energy"}
            means |= {"random_rate": "random_hit", "random_energy": "random_energy"}
            summary[label] |= {name: float(np.mean([row[column] for row in own])) for name, column in means.items()}
    return pa.Table.from_pylist(rows, schema=POINTS), summary


POINTS = pa.schema(
    [("key", pa.string()), ("patient_id", pa.string()), ("label", pa.string()), ("score", pa.float32())]
    + [("hit", pa.bool_()), ("x", pa.float32()), ("y", pa.float32()), ("box_share", pa.float32())]
    + [("energy", pa.float32()), ("random_hit", pa.bool_()), ("random_energy", pa.float32())]
)
"""Columns of pointing.parquet; x and y are 0..1 from the left and top of the model's view, null where a map is flat;
box_share and energy are the shares of the view and of the map's sum inside the boxes, random_* of untrained weights."""


def _boxed(
    shards: ShardSet, labels: Sequence[str], boxes: dict[str, list[Box]], limit: int | None
) -> dict[int, list[str]]:
    wanted: dict[int, list[str]] = {}
    counts = dict.fromkeys(labels, 0)
    for position, key in enumerate(shards.index.keys(shards.rows).tolist()):
        for label in sorted({box.label for box in boxes.get(key, [])} & set(labels)):
            if limit is None or counts[label] < limit:
                counts[label] += 1
                wanted.setdefault(position, []).append(label)
    return wanted


def claim(out: Path, settings: dict[str, Any], marker: str = MARKER) -> None:
    """Make the output folder, or take one that such a command made already: it holds the file `marker`.

    Raises:
        InputError: the folder holds something else.
    """
    if out.exists() and not out.is_dir():
        raise InputError(f"--out {out} is a file; name a folder")
    if out.is_dir() and any(out.iterdir()) and not (out / marker).is_file():
        raise InputError(f"--out {out} holds something else; name a new or an empty folder")
    atomic.write_text(out / marker, json.dumps(settings, indent=2) + "\n")


def explain(
    run: str,
    encoder: Encoder,
    shards: ShardSet,
    out: Path,
    *,
    method: str = "gradcam",
    labels: Sequence[str] | None = None,
    count: int = 4,
    limit: int | None = None,
    layer: str | None = None,
    patch: int | None = None,
) -> dict[str, Any]:
    """Write panels, and the pointing game where the set has boxes, into `out`; return what explain.json holds."""
    names = labels_for(run, encoder, labels)
    explainer = Explainer(encoder, method, layer, patch)
    settings: dict[str, Any] = {"run": str(run), "dataset": shards.card.name, "split": shards.split, "method": method}
    settings |= {"layer": explainer.layer, "patch": patch, "shards_sha256": shards.card.sha256}
    claim(out, settings)
    boxes = read_boxes(shards)
    settings["panels"] = write_panels(explainer, shards, names, count, out, boxes)
    if boxes:
        points, summary = pointing_game(explainer, shards, names, boxes, limit)
        atomic.write(out / "pointing.parquet", lambda temporary: pq.write_table(points, temporary))
        settings["pointing_game"] = summary
    atomic.write_text(out / MARKER, json.dumps(settings, indent=2) + "\n")
    return settings
