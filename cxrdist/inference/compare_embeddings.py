"""Several encoders on the same images: numbers of each, how alike they are, and maps of their features.

Shapes: n test images, K encoders, D features.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from cxrdist.errors import InputError
from cxrdist.inference import explain, heatmaps, representation
from cxrdist.inference.compared_images import Images, dataset_names, drawn, features_of, views_of
from cxrdist.inference.embedding_figures import Maps, draw_cka, draw_maps
from cxrdist.inference.encoder_measures import Features, Row, Splits, measure
from cxrdist.inference.explore import flatten
from cxrdist.inference.network import Encoder
from results import parquet
from results.figures.style import save
from shards import ShardSet
from shards.labels import NEGATIVE, POSITIVE
from shards.progress import Progress

MARKER = "compare.json"
UNTRAINED = "untrained"
"""Name of the network with weights drawn anew."""
_FEWEST = 20


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How encoders are compared."""

    labels: Sequence[str] | None = None
    """Labels to ask about; None = all that the shard sets share."""
    methods: Sequence[str] = ("pca", "tsne")
    """Maps to draw: pca, tsne, umap."""
    colour: str | None = None
    """A label, view, sex or dataset; None = the first label."""
    limit: int = 2000
    """Most images of a split."""
    knn: int = 20
    """Neighbours that vote."""
    seed: int = 0
    """Of the draw of images, of their views, of k-means, t-SNE and UMAP."""
    form: str = "png"
    """Of the figures: png, pdf or svg."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What was found."""

    rows: dict[str, list[Row]]
    """The numbers of each encoder."""
    cka: np.ndarray
    """Linear CKA between encoders, float64 (K, K); NaN where one gives all images the same features."""
    unbiased: np.ndarray
    """The same without its bias."""
    images: int
    """n."""


def with_untrained(encoders: Mapping[str, Encoder]) -> dict[str, Encoder]:
    """The encoders and, last, the network of the first one with weights drawn anew."""
    first = next(iter(encoders.values()))
    fresh = dataclasses.replace(first, module=heatmaps.untrained(first.module), classifier=None)
    return {**encoders, UNTRAINED: fresh}


def compare_embeddings(
    encoders: Mapping[str, Encoder],
    sets: Mapping[str, Sequence[ShardSet]],
    out: Path,
    settings: Settings,
    *,
    quiet: bool = False,
) -> Comparison:
    """Compare encoders and write measures.parquet, cka.parquet, maps.parquet and figures into the folder `out`.

    Args:
        encoders: by the name that they are shown under.
        sets: shard sets of each split: train (probes learn on it), test (everything is measured on it), and val, on
            which penalties are chosen where there is one.
        out: folder; one that exists is taken only if it is empty or such a comparison.
        settings: see there.
        quiet: no progress bar.

    Raises:
        InputError: `out` holds something else; the sets share no usable label; too few images; see `flatten`.
    """
    labels = _labels(sets, settings)
    parts = {split: drawn(held, labels, settings.limit, settings.seed) for split, held in sets.items()}
    usable = _usable(parts, labels, settings)
    images = Splits(train=parts["train"], val=parts.get("val"), test=parts["test"])
    if len(images.test) < _FEWEST:
        raise InputError(
            f"{len(images.test)} test images are too few to compare encoders; at least {_FEWEST} are needed"
        )
    colour = _colour(images.test, usable, settings.colour)
    told = _told(encoders, sets, parts, usable, settings)
    explain.claim(out, told, MARKER)
    features = _all_features(encoders, images, settings.seed, quiet)
    options = {"knn": settings.knn, "seed": settings.seed}
    rows = {name: measure(held, images, usable, **options) for name, held in features.items()}
    maps = _maps({name: held.test for name, held in features.items()}, settings)
    cka, unbiased = _cka([held.test for held in features.values()])
    _write(out, rows, (cka, unbiased), maps, images.test)
    where = f"{', '.join(dataset_names(sets['test']))}, {sets['test'][0].split}: {len(images.test)} images"
    save(draw_maps(maps, *colour, _scores(rows, colour[0]), where), out / f"maps.{settings.form}")
    save(draw_cka(list(encoders), cka, where), out / f"cka.{settings.form}")
    return Comparison(rows=rows, cka=cka, unbiased=unbiased, images=len(images.test))


def _labels(sets: Mapping[str, Sequence[ShardSet]], settings: Settings) -> list[str]:
    """Labels that all sets have, or those of them that are asked for."""
    held = sets["test"]
    shared = [label for label in held[0].labels if all(label in other.labels for other in held)]
    for label in settings.labels or ():
        if label not in shared:
            raise InputError(
                f"--labels {label}: not a label of all shard sets; these are: {', '.join(shared) or 'none'}"
            )
    return list(settings.labels or shared)


def _usable(parts: dict[str, Images], labels: Sequence[str], settings: Settings) -> list[str]:
    """Labels with positives and negatives among the images taken for training and for test; the others go.

    Raises:
        InputError: one that was asked for is not among them.
    """
    both = [
        all({POSITIVE, NEGATIVE} <= set(parts[split].truth[:, column].tolist()) for split in ("train", "test"))
        for column in range(len(labels))
    ]
    for label, good in zip(labels, both, strict=True):
        if settings.labels and not good:
            raise InputError(f"--labels {label}: not both positives and negatives among the images; leave it out")
    for split, held in parts.items():
        parts[split] = dataclasses.replace(held, truth=held.truth[:, np.array(both, dtype=bool)])
    return [label for label, good in zip(labels, both, strict=True) if good]


def _colour(test: Images, labels: Sequence[str], asked: str | None) -> tuple[str, np.ndarray]:
    """What dots are coloured by, and its value for each test image; None where not known."""
    name = asked or next(iter(labels), "view")
    if name in labels:
        words = {int(POSITIVE): "positive", int(NEGATIVE): "negative"}
        values = [words.get(int(value)) for value in test.truth[:, list(labels).index(name)]]
        return name, np.array(values, dtype=object)
    if name in test.traits:
        return name, test.traits[name]
    raise InputError(f"--colour {name}: must be one of {', '.join([*labels, *test.traits])}")


def _told(
    encoders: Mapping[str, Encoder],
    sets: Mapping[str, Sequence[ShardSet]],
    parts: Mapping[str, Images],
    labels: Sequence[str],
    settings: Settings,
) -> dict[str, Any]:
    """What compare.json says."""
    return {
        "encoders": {name: {"file": str(one.source), "arch": one.name} for name, one in encoders.items()},
        "datasets": {
            name: one.card.sha256 for name, one in zip(dataset_names(sets["test"]), sets["test"], strict=True)
        },
        "splits": {split: held[0].split for split, held in sets.items()},
        "images": {split: len(held) for split, held in parts.items()},
        **dataclasses.asdict(settings),
        "labels": list(labels),
    }


def _all_features(encoders: Mapping[str, Encoder], images: Splits, seed: int, quiet: bool) -> dict[str, Features]:
    held = [part for part in (images.train, images.val, images.test) if part is not None]
    total = len(encoders) * sum(map(len, held))
    found = {}
    with Progress(total, "described", unit="image", quiet=quiet) as bar:
        for name, encoder in encoders.items():
            found[name] = Features(
                train=features_of(encoder, images.train, bar.add),
                val=None if images.val is None else features_of(encoder, images.val, bar.add),
                test=features_of(encoder, images.test, bar.add),
                views=views_of(encoder, images.test, seed),
            )
            if not all(np.isfinite(part).all() for part in (found[name].train, found[name].test)):
                raise InputError(f"{name}: its features are not all finite numbers; the run has diverged, leave it out")
    return found


def _cka(features: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """CKA between all pairs, and without its bias: float64 (K, K) each, NaN where undefined."""
    count = len(features)
    plain, unbiased = np.full((count, count), np.nan), np.full((count, count), np.nan)
    for i, j in itertools.combinations_with_replacement(range(count), 2):
        for matrix, formula in ((plain, representation.linear_cka), (unbiased, representation.unbiased_cka)):
            value = formula(features[i], features[j])
            matrix[i, j] = matrix[j, i] = np.nan if value is None else value
    return plain, unbiased


def _maps(features: Mapping[str, np.ndarray], settings: Settings) -> Maps:
    """Maps of all encoders by all methods."""
    found: Maps = {}
    for method in settings.methods:
        for name, held in features.items():
            found[method, name] = flatten(held, method, settings.seed)
    return found


def _scores(rows: Mapping[str, Sequence[Row]], target: str) -> dict[str, float]:
    """The linear probe's AUROC of what dots are coloured by, for the titles of the maps."""
    return {
        name: row.value
        for name, held in rows.items()
        for row in held
        if (row.measure, row.target) == ("probe_auroc", target)
    }


def _write(
    out: Path,
    rows: Mapping[str, Sequence[Row]],
    cka: tuple[np.ndarray, np.ndarray],
    maps: Maps,
    test: Images,
) -> None:
    measures = [{"encoder": name, **dataclasses.asdict(row)} for name, held in rows.items() for row in held]
    kinds: dict[Any, pa.DataType] = {name: pa.string() for name in ("encoder", "measure", "kind", "target")}
    kinds |= {name: pa.float64() for name in ("value", "ci_low", "ci_high", "chance")} | {"images": pa.int64()}
    parquet.write(out / "measures.parquet", pa.Table.from_pylist(measures, pa.schema(list(kinds.items()))))
    names = list(rows)
    pairs = [
        {"encoder": a, "other": b, "cka": float(cka[0][i, j]), "cka_unbiased": float(cka[1][i, j])}
        for (i, a), (j, b) in itertools.product(enumerate(names), repeat=2)
    ]
    parquet.write(out / "cka.parquet", pa.Table.from_pylist(pairs))
    points = [
        pa.table(
            {
                "encoder": pa.array([name] * len(test), pa.string()),
                "method": pa.array([method] * len(test), pa.string()),
                "dataset": pa.array(test.traits["dataset"].tolist(), pa.string()),
                "key": pa.array(test.keys.tolist(), pa.string()),
                "x": flat[:, 0],
                "y": flat[:, 1],
            }
        )
        for (method, name), (flat, _) in maps.items()
    ]
    if points:
        parquet.write(out / "maps.parquet", pa.concat_tables(points))
