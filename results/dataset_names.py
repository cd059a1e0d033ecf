"""Shard sets by content: two of one name get the start of their hash behind it, one of two names is one.

Inside a run's files a set has its own name, or NAME@HASH where another set of the run has that name already. In a
collected table the hash stands behind a name exactly when the table holds several sets of that name.
"""

# pyright: reportAttributeAccessIssue=false
# (pyarrow.compute makes its functions when it is imported)
from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

COLUMNS = ("pretrain_dataset", "train_dataset", "test_dataset")
"""Columns of names; each has its hashes in the column `NAME_hash`."""

_DIGITS = 8


def with_hash(name: str, content: str) -> str:
    """The name of a shard set with the start of its hash; unchanged where it is there already."""
    return f"{plain(name, content)}@{content[:_DIGITS]}"


def plain(name: str, content: str | None) -> str:
    """The name without the hash that `with_hash` put behind it."""
    return name.removesuffix(f"@{content[:_DIGITS]}") if content else name


def in_run(name: str, content: str | None, known: Iterable[str]) -> str | None:
    """How a run's own files name a shard set of a collected table.

    Args:
        name: as in the table.
        content: its hash there; None for results that recorded none.
        known: the names in the run's file.

    Returns:
        One of `known`, or None when the set is not in the file.
    """
    candidates = (with_hash(name, content), plain(name, content)) if content else (name,)
    held = set(known)
    return next((candidate for candidate in candidates if candidate in held), None)


def distinct_names(table: pa.Table) -> pa.Table:
    """The table with names of shard sets that stand for one content each; names without a hash stay."""
    pairs = {column: pairs_of(table, column) for column in COLUMNS}
    contents: dict[str, set[str]] = defaultdict(set)
    for name, content in set().union(*pairs.values()):
        if name is not None and content is not None:
            contents[plain(name, content)].add(content)
    for column, held in pairs.items():
        renamed = {}
        for name, content in held:
            if name is not None and content is not None:
                base = plain(name, content)
                wanted = with_hash(name, content) if len(contents[base]) > 1 else base
                if wanted != name:
                    renamed[name, content] = wanted
        for (name, content), wanted in renamed.items():
            mask = pc.and_(pc.equal(table[column], name), pc.equal(table[f"{column}_hash"], content))
            changed = pc.if_else(pc.fill_null(mask, False), pa.scalar(wanted), table[column])
            table = table.set_column(table.column_names.index(column), table.schema.field(column), changed)
    return table


def pairs_of(table: pa.Table, column: str) -> set[tuple[str | None, str | None]]:
    """The different names in one of `COLUMNS`, each with its hash."""
    coded = [table[name].combine_chunks().dictionary_encode() for name in (column, f"{column}_hash")]
    names, contents = ([None, *one.dictionary.to_pylist()] for one in coded)
    name, content = (one.indices.fill_null(-1).to_numpy().astype(np.int64) + 1 for one in coded)
    pairs = np.unique(
        name * len(contents) + content
    ).tolist()  # not group_by: its import takes longer than a small table
    return {(names[pair // len(contents)], contents[pair % len(contents)]) for pair in pairs}
