"""Names of initialisations, where several have the same one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from results.cells import config_keys
from results.schema import Row


def with_distinct_inits(rows: list[Row], pretrained: Sequence[Row]) -> list[Row]:
    """Encoders of one name by the run that made them, or by their file where runs are not known to differ.

    Runs that differ in their seed or in one other setting alone are called by it, `simclr:nih (seed=1)`; others, and
    those that are not among the results, by the beginning of their signature.

    Args:
        rows: of fine-tuned runs; their names are changed in place.
        pretrained: rows of the pretraining runs that there are.
    """
    for column in ("init_signature", "init_hash"):
        sources: dict[str, set[str]] = defaultdict(set)
        for row in rows:
            if row[column] is not None:
                sources[str(row["init"])].add(row[column])
        told = {
            (init, source): name
            for init, held in sources.items()
            if len(held) > 1
            for source, name in _told_apart(held, pretrained).items()
        }
        for row in rows:
            name = told.get((str(row["init"]), str(row[column])))
            row["init"] = row["init"] if name is None else f"{row['init']} ({name})"
    return rows


def _told_apart(held: set[str], pretrained: Sequence[Row]) -> dict[str, str]:
    """Signature or hash -> what stands in brackets."""
    short = {source: source[:6] for source in held}
    runs = {row["signature"]: row for row in pretrained if row["signature"] in held and row["config"] is not None}
    if set(runs) != held:
        return short
    differing = set(config_keys.differing(runs.values()))
    seeds = {source: str(row["seed"]) for source, row in runs.items()}
    if len(set(seeds.values())) > 1:
        differing.add(config_keys.SEED)
    if len(differing) != 1:
        return short
    (key,) = differing
    values = seeds if key == config_keys.SEED else {
        source: config_keys.spell((config_keys.config_of(row) or {}).get(key)) for source, row in runs.items()
    }  # fmt: skip
    if len(set(values.values())) < len(held):
        return short
    return {source: f"{key}={value}" for source, value in values.items()}
