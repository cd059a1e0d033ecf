"""Names of initialisations, where several have the same one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from results import configs
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
    settings = {
        row["signature"]: (configs.config_of(row) or {}) | {configs.SEED: row["seed"]}
        for row in pretrained
        if row["signature"] in held and row[configs.COLUMN] is not None
    }
    differing = config_keys.varied(list(settings.values()))
    if set(settings) != held or len(differing) != 1:
        return short
    ((key, values),) = differing.items()
    if len(values) < len(held):
        return short
    return {source: f"{key}={config_keys.spell(one.get(key))}" for source, one in settings.items()}
