"""`cxrdist compare-embeddings`: what several encoders make of the same images."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from cxrdist.inference.options import LookConfig

if TYPE_CHECKING:
    import numpy as np

    from cxrdist.inference.encoder_measures import Row
    from shards import ShardSet

HELP = (
    "Compare encoders on the same images: kNN and linear probes, groups of labels, effective rank, alignment and "
    "uniformity, what the features tell of patient, view, sex and dataset, how alike they are (CKA), maps."
)
POSITIONALS = ("runs",)


@dataclass(frozen=True, kw_only=True)
class Config(LookConfig):
    """Which encoders, on which images.

    `shards` may name several shard sets, separated by commas: then it is also measured how far the features tell from
    which one an image is. `out` is a folder, None = RUN/compare-embeddings.
    """

    train_split: str = "train"
    """Split that neighbours and probes learn from."""
    labels: list[str] | str | None = None
    """Labels, as a list or separated by commas; None = all that the shard sets share."""
    methods: list[str] | str = "pca,tsne"
    """Maps to draw: pca, tsne, umap, separated by commas; umap needs the extra `explore`."""
    colour: str | None = None
    """What dots of the maps are coloured by: a label, view, sex or dataset; None = the first label."""
    limit: Annotated[int, "[20, 5000]"] = 2000
    """Most images of a split, drawn at random, as many of each shard set."""
    knn: Annotated[int, "[1, inf)"] = 20
    """Neighbours that vote."""
    untrained: bool = True
    """Compare with the first network, its weights drawn anew: what it sees without any learning."""
    seed: Annotated[int, "[0, 2^32)"] = 0
    """Of the draw of images, of their augmented views, and of k-means, t-SNE and UMAP."""
    format: Literal["png", "pdf", "svg"] = "png"
    """Of the figures."""


def run(config: Config) -> int:
    """Compare, write the folder, print the table."""
    from cxrdist.errors import InputError
    from cxrdist.finetune.config import words
    from cxrdist.inference import network, tested_run
    from cxrdist.inference.compare_embeddings import UNTRAINED, Settings, compare_embeddings, with_untrained
    from cxrdist.inference.explore import need
    from cxrdist.inference.options import out_of

    methods = words(config.methods) or []
    if not methods:
        raise InputError("--methods names no map; take pca, tsne or umap, or several by commas")
    for method in methods:
        if method not in ("pca", "tsne", "umap"):
            raise InputError(f"--methods {method}: must be pca, tsne or umap, separated by commas")
        need(method)
    names = tested_run.names_of(config.runs)
    if UNTRAINED in names and config.untrained:
        raise InputError(f"a run is called {UNTRAINED}; rename it, or use --untrained false")
    out, sets = out_of(config, "compare-embeddings"), _sets(config)
    encoders = {name: network.load(run, config.device) for name, run in zip(names, config.runs, strict=True)}
    if config.untrained:
        encoders = with_untrained(encoders)
    settings = Settings(
        labels=words(config.labels), methods=tuple(dict.fromkeys(methods)), colour=config.colour, limit=config.limit,
        knn=config.knn, seed=config.seed, form=config.format,
    )  # fmt: skip
    found = compare_embeddings(encoders, sets, out, settings)
    print(table(found.rows))
    print()
    print(matrix("linear CKA (in brackets without its bias)", list(encoders), found.cka, found.unbiased))
    print(f"{out}: {found.images} test images, {len(encoders)} encoders; numbers in measures.parquet", file=sys.stderr)
    return 0


def _sets(config: Config) -> dict[str, list[ShardSet]]:
    """The shard sets of each split; val only where all have one that is not asked for otherwise.

    Raises:
        InputError: the splits of probes and of test are one; no such set or split.
    """
    from cxrdist.errors import InputError
    from cxrdist.inference.network import own_shards
    from cxrdist.inference.options import opened
    from cxrdist.pretrain.config import split_places

    if config.train_split == config.split:
        raise InputError(f"--train_split and --split are both {config.split}; probes must be tested on other images")
    found = {"train": config.train_split, "test": config.split}
    where = split_places(own_shards(config.run, config.shards))
    held = {role: [opened(config.run, place, split, config.stage) for place in where] for role, split in found.items()}
    if "val" not in found.values() and all("val" in shards.card.splits for shards in held["test"]):
        held["val"] = [opened(config.run, place, "val", config.stage) for place in where]
    return held


MEASURES = {
    "knn_auroc": "kNN AUROC",
    "probe_auroc": "linear probe AUROC",
    "silhouette": "silhouette",
    "kmeans_nmi": "k-means NMI",
    "kmeans_ari": "k-means ARI",
    "pair_auroc": "pairs AUROC",
    "nearest": "nearest is own",
    "effective_rank": "effective rank",
    "alignment": "alignment",
    "uniformity": "uniformity",
}
"""Titles, in the order of the table."""


def table(rows: Mapping[str, Sequence[Row]]) -> str:
    """One line per number, one column per encoder; of several labels their mean alone (all are in the file)."""
    from results.schema import MACRO

    by_line: dict[tuple[str, str], dict[str, Row]] = {}
    several = any(row.target == MACRO for held in rows.values() for row in held)
    for name, held in rows.items():
        for row in held:
            if row.kind != "label" or not several or row.target == MACRO:
                by_line.setdefault((row.measure, row.target), {})[name] = row
    kinds = list(MEASURES)
    # Labels first, then what should not be known, then the features by themselves, each in the order of MEASURES.
    order = {"label": 0, "shortcut": 1, "features": 2}

    def place(line: tuple[str, str]) -> tuple[int, str, int]:
        kind = next(iter(by_line[line].values())).kind
        return order[kind], line[1] if kind == "shortcut" else "", kinds.index(line[0])

    lines = [
        [f"{MEASURES[measure]}{', ' + target if target else ''}", *(_cell(held.get(name)) for name in rows)]
        for (measure, target), held in sorted(by_line.items(), key=lambda item: place(item[0]))
    ]
    return _aligned([["", *rows], *lines])


def matrix(title: str, names: Sequence[str], plain: np.ndarray, unbiased: np.ndarray) -> str:
    """A matrix of numbers between encoders."""
    lines = [
        [name, *(f"{a:.3f} ({b:.3f})" for a, b in zip(first, second, strict=True))]
        for name, first, second in zip(names, plain, unbiased, strict=True)
    ]
    return _aligned([[title, *names], *lines])


def _cell(row: Row | None) -> str:
    if row is None:
        return "-"
    text = f"{row.value:.3f}"
    if row.ci_low is not None:
        return f"{text} ({row.ci_low:.3f}-{row.ci_high:.3f})"
    return f"{text} (chance {row.chance:.3f})" if row.measure == "nearest" else text


def _aligned(lines: Sequence[Sequence[str]]) -> str:
    widths = [max(len(line[place]) for line in lines) for place in range(len(lines[0]))]
    return "\n".join(
        "  ".join(
            [line[0].ljust(widths[0]), *(text.rjust(width) for text, width in zip(line[1:], widths[1:], strict=True))]
        )
        for line in lines
    )
