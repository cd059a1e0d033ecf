"""One self-contained HTML page to look through what fine-tuned runs said of a test set, image by image.

All numbers on the page (counts, rates, ROC) are of all N tested images, from predictions.parquet; n of them are shown.
Shapes: N tested images, n shown, L labels, T thumbnail side, V side of the images on the page, h cells of a map.
"""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from cxrdist.errors import InputError
from cxrdist.inference import heatmaps
from cxrdist.inference.embed import described
from cxrdist.inference.explore import THUMBNAIL, flatten, refuse_other, sample, sprite
from cxrdist.inference.network import Encoder, batches
from cxrdist.inference.pointing_game import read_boxes
from cxrdist.inference.tested_run import TestedRun, comparable
from results import atomic
from shards import ShardSet
from shards.progress import Progress

PAGES = Path(__file__).parent / "pages"
VIEW = 256
"""V at most; no more than the shard set has."""
QUALITY = 80
"""JPEG quality of the images on the page: about 10 kB each."""
MAX_CELLS = 14
"""Cells of a map on the page; finer ones are averaged."""
LIMIT = 1000
"""Images on the page unless asked otherwise."""


def explore_tested(
    runs: Sequence[TestedRun],
    shards: ShardSet,
    out: Path,
    *,
    method: str = "pca",
    limit: int | None = None,
    seed: int = 0,
    quiet: bool = False,
) -> int:
    """Write the page of tested runs and return how many images are on it.

    Args:
        runs: tested on the same images.
        shards: the split they were tested on.
        out: HTML file; one that exists is replaced only if it is such a page.
        method: of the map of features: pca, tsne or umap.
        limit: most images on the page, drawn at random; None = `LIMIT`.
        seed: of the draw, and of tsne and umap.
        quiet: no progress bar.

    Raises:
        InputError: `out` is something else; the runs share no label or were tested on different images; see `flatten`.
    """
    refuse_other(out)
    labels = comparable(runs)
    positions = sample(shards, LIMIT if limit is None else limit, seed)
    keys = shards.index.keys(shards.rows_at(positions))
    place = {key: i for i, key in enumerate(runs[0].matrix.keys.tolist())}
    if missing := [key for key in keys.tolist() if key not in place]:
        raise InputError(f"{runs[0].name} has no prediction of {missing[0]}; evaluate it on {shards.path} again")
    images, thumbnails = _pictures(shards, positions)
    url, across = sprite(thumbnails)
    with Progress(len(runs) * len(positions), "explored", unit="image", quiet=quiet) as bar:
        columns = [_run(run, shards, positions, labels, (method, seed), bar) for run in runs]
    data = {
        "labels": labels,
        "count": len(runs[0].matrix.keys),
        "runs": columns,
        "tested": [place[key] for key in keys.tolist()],
        "sprite": url,
        "across": across,
        "boxes": _boxes(shards, keys.tolist(), labels),
    } | _facts(shards, positions)
    title = f"{shards.card.name}, {shards.split}: {', '.join(run.name for run in runs)}"
    note = f"{len(positions)} of {len(runs[0].matrix.keys)} tested images are shown; numbers are of all of them."
    atomic.write_text(out, page_of(title, note, data, images))
    return len(positions)


def _facts(shards: ShardSet, positions: np.ndarray) -> dict[str, Any]:
    """What the index says of the images on the page."""
    known = {name: values.to_pylist() for name, values in described(shards, positions).items()}
    facts: dict[str, Any] = {name: known[name] for name in ("key", "view", "sex")}
    facts["patient"] = [value or "" for value in known["patient_id"]]
    facts["age"] = [None if value is None else round(value, 1) for value in known["age"]]
    facts["views"], facts["sexes"] = (sorted({v for v in known[name] if v}) for name in ("view", "sex"))
    marked = {name.removeprefix("label_"): values for name, values in known.items() if name.startswith("label_")}
    facts["findings"] = {name: values for name, values in marked.items() if 1 in values}
    return facts


def _pictures(shards: ShardSet, positions: np.ndarray) -> tuple[list[str], list[np.ndarray]]:
    """Base64 JPEGs (V, V), and thumbnails uint8 (T, T)."""
    images, thumbnails = [], []
    for _, part in batches(shards, positions, min(VIEW, shards.card.image_size)):
        for image in part:
            done, data = cv2.imencode(".jpg", image[0].numpy(), [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
            assert done
            images.append(base64.b64encode(data.tobytes()).decode())
            thumbnails.append(cv2.resize(image[0].numpy(), (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA))
    return images, thumbnails


def _boxes(shards: ShardSet, keys: Sequence[str], labels: Sequence[str]) -> list[list[Any] | None]:
    """Per image its boxes of the labels as (label, left, top, right, bottom) in 0..1; None without any."""
    found = read_boxes(shards)
    own = [[box for box in found.get(key, []) if box.label in labels] for key in keys]
    edges = ("left", "top", "right", "bottom")
    return [[[b.label, *(round(getattr(b, edge), 4) for edge in edges)] for b in boxes] or None for boxes in own]


def _run(
    run: TestedRun,
    shards: ShardSet,
    positions: np.ndarray,
    labels: Sequence[str],
    mapping: tuple[str, int],
    bar: Progress,
) -> dict[str, Any]:
    """What the page holds of one run."""
    matrix, network = run.matrix, run.network
    columns = [matrix.labels.index(label) for label in labels]
    features, maps, layer = features_and_maps(network, shards, positions, labels, bar)
    flat, axes = flatten(features, *mapping)
    span = np.ptp(flat, axis=0)
    unit = ((flat - flat.min(axis=0)) / np.where(span > 0, span, 1)).round(4)
    about = f"{network.name} at {network.image_size} pixels; "
    about += f"Grad-CAM of {layer}" if layer else "no heat maps: the network has no feature maps"
    return {
        "name": run.name,
        "about": about,
        "rule": run.rule,
        "thresholds": {label: run.thresholds[label] for label in labels},
        "scores": {label: packed(matrix.score[:, j], np.float32) for label, j in zip(labels, columns, strict=True)},
        "truth": {label: packed(matrix.truth[:, j], np.int8) for label, j in zip(labels, columns, strict=True)},
        "maps": maps,
        "flat": {"x": unit[:, 0].tolist(), "y": unit[:, 1].tolist(), "axes": axes},
    }


def features_and_maps(
    network: Encoder, shards: ShardSet, positions: np.ndarray, labels: Sequence[str], bar: Progress
) -> tuple[np.ndarray, dict[str, Any] | None, str | None]:
    """Features (n, D); class activation maps of all labels as the page holds them, and their layer; None without."""
    assert network.classifier is not None
    layer = heatmaps.pick_layer(network.classifier) if heatmaps.feature_maps(network.classifier) else None
    columns = [network.classifier.facts["labels"].index(label) for label in labels]
    features, cells = [], []
    for part, images in batches(shards, positions, network.image_size):
        features.append(network.features(images))
        if layer is not None:
            found = heatmaps.class_maps(network.classifier, network.pixels(images), columns, layer)
            cells.append(np.stack([[_small(one) for one in row] for row in found]))
        bar.add(len(part))
    if layer is None:
        return np.concatenate(features), None, None
    whole = np.concatenate(cells, axis=1)
    packs = {label: packed(whole[k], np.uint8) for k, label in enumerate(labels)}
    return np.concatenate(features), {"side": int(whole.shape[-1]), "cells": packs}, layer


def _small(cells: np.ndarray) -> np.ndarray:
    """A map (h, h) as uint8, 255 at its hottest, of at most `MAX_CELLS` cells a side."""
    if cells.shape[0] > MAX_CELLS:
        cells = cv2.resize(cells, (MAX_CELLS, MAX_CELLS), interpolation=cv2.INTER_AREA)
    top = float(cells.max())
    return np.zeros(cells.shape, np.uint8) if top <= 0 else np.round(255 * cells / top).astype(np.uint8)


def packed(values: np.ndarray, kind: Any) -> str:
    """An array as base64 of its little-endian bytes."""
    return base64.b64encode(np.ascontiguousarray(values, dtype=np.dtype(kind).newbyteorder("<")).tobytes()).decode()


def page_of(title: str, note: str, data: dict[str, Any], images: Sequence[str] = ()) -> str:
    """The whole document.

    Args:
        title: of the window.
        note: below the heading.
        data: what the page's script reads when it starts.
        images: base64 JPEGs; they stand last, so that list and numbers are there before these megabytes are read.
    """
    # A key could hold "</script>", which would end the element early; JSON may spell "<" otherwise.
    text = json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    page = (PAGES / "explorer.html").read_text(encoding="utf-8")
    parts = {"TITLE": html.escape(title), "NOTE": html.escape(note)}
    parts["STYLE"] = (PAGES / "explorer.css").read_text(encoding="utf-8")
    parts["SCRIPT"] = "".join((PAGES / name).read_text(encoding="utf-8") for name in ("numbers.js", "explorer.js"))
    for name, value in parts.items():
        page = page.replace(f"@{name}@", value)
    page = page.replace("@IMAGES@", "\n".join(images))
    return page.replace("@DATA@", text)  # last: what data holds is never taken for a mark
