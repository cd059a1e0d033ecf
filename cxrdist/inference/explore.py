"""One self-contained HTML page: a map of a shard set's embeddings, with the image under the pointer.

Shapes: n samples, D features, T thumbnail side in pixels.
"""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Sequence
from importlib import util
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from cxrdist.errors import InputError
from cxrdist.inference.embed import described
from cxrdist.inference.network import Encoder, batches
from results import atomic
from shards import ShardSet

THUMBNAIL = 64
"""T."""


def sample(shards: ShardSet, limit: int, seed: int) -> np.ndarray:
    """At most `limit` positions of a split, drawn without replacement, ascending; the same for the same seed."""
    count = len(shards)
    if count <= limit:
        return np.arange(count)
    return np.sort(np.random.default_rng(seed).choice(count, limit, replace=False))


def flatten(features: np.ndarray, method: str, seed: int) -> tuple[np.ndarray, str]:
    """Features (n, D) -> map (n, 2) and a line on what its axes mean.

    pca is deterministic up to rounding (the sign of an axis is fixed: its largest weight is positive). tsne
    (van der Maaten and Hinton 2008) and umap (McInnes et al. 2018) begin with the first 50 principal components; their
    distances between far groups mean nothing.

    Raises:
        InputError: too few samples, or umap is not installed.
    """
    if len(features) < 4:
        raise InputError(f"{len(features)} samples are too few for a map; at least 4 are needed")
    centred = features.astype(np.float64) - features.mean(axis=0)
    left, strength, axes = np.linalg.svd(centred, full_matrices=False)
    signs = np.sign(axes[np.arange(len(axes)), np.abs(axes).argmax(axis=1)])
    components = left * strength * np.where(signs == 0, 1, signs)
    if method == "pca":
        total = max(float((strength**2).sum()), 1e-30)
        share = strength[:2] ** 2 / total
        flat = components[:, :2] if components.shape[1] > 1 else np.c_[components, np.zeros(len(components))]
        return flat, f"principal components 1 ({share[0]:.0%} of the variance) and 2 ({share[-1]:.0%})"
    if method == "tsne":
        from sklearn.manifold import TSNE

        perplexity = min(30.0, (len(features) - 1) / 3)
        fitted = TSNE(perplexity=perplexity, init="pca", random_state=seed).fit_transform(components[:, :50])
        return np.asarray(
            fitted, dtype=np.float64
        ), f"t-SNE (perplexity {perplexity:g}); distances between groups mean little"
    if method == "umap":
        need(method)
        import umap  # pyright: ignore[reportMissingImports]

        near = min(15, len(features) - 1)
        fitted = umap.UMAP(n_neighbors=near, random_state=seed, n_jobs=1).fit_transform(components[:, :50])
        return np.asarray(fitted, dtype=np.float64), f"UMAP ({near} neighbours); distances between groups mean little"
    raise InputError(f"method {method!r} is unknown; use pca, tsne or umap")


def need(method: str) -> None:
    """Refuse a method whose library is missing, before anything is computed.

    Raises:
        InputError: umap is not installed.
    """
    if method == "umap" and util.find_spec("umap") is None:
        raise InputError("--method umap needs the extra 'explore': pip install 'cxrdist[explore]'; or take pca or tsne")


def sprite(images: Sequence[np.ndarray], side: int = THUMBNAIL) -> tuple[str, int]:
    """All thumbnails in one JPEG as a data URL, and how many stand in a row."""
    across = max(1, int(np.ceil(np.sqrt(len(images)))))
    down = -(-len(images) // across)
    sheet = np.zeros((down * side, across * side), np.uint8)
    for number, image in enumerate(images):
        y, x = divmod(number, across)
        sheet[y * side : (y + 1) * side, x * side : (x + 1) * side] = image
    done, data = cv2.imencode(".jpg", sheet, [cv2.IMWRITE_JPEG_QUALITY, 72])
    assert done
    return "data:image/jpeg;base64," + base64.b64encode(data.tobytes()).decode(), across


def gather(
    encoder: Encoder, shards: ShardSet, positions: np.ndarray
) -> tuple[np.ndarray, np.ndarray | None, list[Any]]:
    """Features (n, D), scores (n, L) or None without a classifier, and thumbnails of some samples."""
    encoder = encoder.fitted_to(shards.card)
    features, scores, small = [], [], []
    for _, images in batches(shards, positions, encoder.image_size):
        features.append(encoder.features(images))
        if encoder.classifier is not None:
            scores.append(encoder.scores(images))
        small += [cv2.resize(i[0].numpy(), (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA) for i in images]
    return np.concatenate(features), np.concatenate(scores) if scores else None, small


def refuse_other(out: Path) -> None:
    """Refuse to replace what is no page of this command.

    Raises:
        InputError: `out` is something else.
    """
    if out.is_dir() or (out.exists() and not _is_page(out)):
        raise InputError(f"--out {out} exists and is not a page of cxrdist explore; choose another name")


def _is_page(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(400).startswith(b"<!doctype html>\n<!-- cxrdist explore")


def explore(
    encoder: Encoder,
    shards: ShardSet,
    out: Path,
    *,
    labels: Sequence[str],
    method: str = "pca",
    limit: int = 2000,
    seed: int = 0,
) -> int:
    """Write the page and return how many samples are on it.

    Args:
        encoder: gives the features, and the scores where it is a fine-tuned model.
        shards: one split.
        out: HTML file; one that exists is replaced only if it is such a page.
        labels: labels of the classifier whose scores can be shown (none for an encoder).
        method: pca, tsne or umap.
        limit: most samples on the page.
        seed: of the draw, and of tsne and umap.

    Raises:
        InputError: `out` is something else; too few samples; umap is not installed.
    """
    refuse_other(out)
    positions = sample(shards, limit, seed)
    features, scores, thumbnails = gather(encoder, shards, positions)
    flat, axes = flatten(features, method, seed)
    span = np.ptp(flat, axis=0)
    unit = (flat - flat.min(axis=0)) / np.where(span > 0, span, 1)
    url, across = sprite(thumbnails)
    known = described(shards, positions)
    colours = classes_of({name: values.to_pylist() for name, values in known.items()}, labels)
    numbers: dict[str, list[float]] = {}
    if scores is not None and encoder.classifier is not None:
        for name in labels:
            column = encoder.classifier.facts["labels"].index(name)
            numbers[f"score: {name}"] = [round(float(value), 4) for value in scores[:, column]]
    data = {
        "x": [round(float(value), 4) for value in unit[:, 0]],
        "y": [round(float(value), 4) for value in unit[:, 1]],
        "key": known["key"].to_pylist(),
        "patient": known["patient_id"].to_pylist(),
        "classes": colours,
        "numbers": numbers,
        "sprite": url,
        "across": across,
        "side": THUMBNAIL,
    }
    title = f"{shards.card.name} {shards.split or 'all'}: {len(positions)} of {len(shards)} images, {encoder.name}"
    atomic.write_text(out, _page(title, f"{axes}. Features of {encoder.source}.", data))
    return len(positions)


def classes_of(known: dict[str, list[Any]], first: Sequence[str]) -> dict[str, list[Any]]:
    """What dots can be coloured by: labels (those of the model first), view and sex, as far as some sample has one.

    What tells samples apart comes before what all of them share, so that the page opens with something to see.
    """
    names = {name.removeprefix("label_"): values for name, values in known.items() if name.startswith("label_")}
    names |= {name: known[name] for name in ("view", "sex")}
    held = {name: values for name, values in names.items() if any(value is not None for value in values)}
    order = sorted(held, key=lambda name: (len(set(held[name])) < 2, name not in first, name in ("view", "sex")))
    return {name: held[name] for name in order}


def _page(title: str, note: str, data: dict[str, Any]) -> str:
    # A key could hold "</script>", which would end the element early; JSON may spell "<" otherwise.
    text = json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")
    template = (Path(__file__).parent / "pages" / "map.html").read_text(encoding="utf-8")
    page = template.replace("@TITLE@", html.escape(title)).replace("@NOTE@", html.escape(note))
    return page.replace("@DATA@", text)
