"""The end of a conversion: what the tars hold -> index.parquet, rejects.parquet and, last, dataset.json."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import math
import statistics
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute

from shards import parquet
from shards.atomic import write_bytes, write_with
from shards.convert.config import ConvertConfig
from shards.convert.pack import chunk_header
from shards.convert.plan import Plan, in_two_splits, members_of_splits, reject_table
from shards.convert.rows import groups
from shards.errors import FailedError, InputError
from shards.format import (
    CARD,
    FORMAT_VERSION,
    INDEX,
    LABEL,
    REJECTS,
    SPLITS,
    STUDY,
    Card,
    card_bytes,
    file_sha256,
    index_schema,
)

if TYPE_CHECKING:
    from shards.convert.tar_layout import Shard

pc: Any = pyarrow.compute  # its functions are made at import, unseen by type checkers

ROW_GROUP = 1 << 17
"""Rows per row group of the index."""


def conversion_hash(plan: Plan, config: ConvertConfig) -> str:
    """Return the hash that tells one conversion from another: settings and source rows, 64 hex digits."""
    settings = json.dumps(config.recorded(), sort_keys=True)
    return hashlib.sha256(f"{FORMAT_VERSION} {settings} {plan.fingerprint}".encode()).hexdigest()


def merge(plan: Plan, config: ConvertConfig, shards: Sequence[Shard], out: Path, work: Path, identity: str) -> Card:
    """Write the index, the rejects and the card from the sidecars of all tars.

    Raises:
        InputError: some tars are not made yet.
        FailedError: too many rejects over all parts, or nothing left.
    """
    missing = [shard.name for shard in shards if not is_made(shard, out, work)]
    if missing:
        raise InputError(
            f"{len(missing)} of {len(shards)} tars of {out} are not made yet (first: {missing[0]}); run the missing "
            "parts, then merge"
        )
    facts = [_summary(shard, work, sides=config.size is None) for shard in shards]
    n_samples = sum(fact["n"] for fact in facts)
    refused = list(plan.refused) + _rejects(plan, facts)
    limit = config.max_rejects * (plan.table.num_rows + len(plan.refused))
    if len(refused) > limit or n_samples == 0:
        raise FailedError(
            f"{len(refused)} of {plan.table.num_rows + len(plan.refused)} sources are unusable, more than "
            f"--max_rejects {config.max_rejects:g} (first: {': '.join(refused[0])}); fix the source, or allow more"
        )
    schema = index_schema(plan.labels, studies=STUDY in plan.table.column_names)
    tally = _Tally(plan.labels, plan.patients_known)
    write_with(out / INDEX, lambda path: _write_index(path, schema, plan, shards, work, tally), temporary_in=work)
    rejects = reject_table(refused, plan.left_out())
    _write_parquet(out / REJECTS, rejects, work)
    for name, table in plan.extras.items():
        _write_parquet(out / name, _only_kept(table, plan, facts), work)
    mean, std = _grey_statistics(shards, facts)
    card = Card(
        format_version=FORMAT_VERSION,
        name=plan.name,
        source=plan.source,
        labels=plan.labels,
        counts=tally.counts(),
        image_size=_image_size(config, facts),
        image_format=config.image_format,
        mean=mean,
        std=std,
        split_scheme=plan.split_scheme,
        split_detail=dict(plan.split_detail),
        shards=tuple(
            {"name": f"{s.name}.tar", "split": s.split, "n": f["n"], "bytes": f["bytes"], "sha256": f["sha256"]}
            for s, f in zip(shards, facts, strict=True)
            if f["n"]
        ),
        files={name: file_sha256(out / name) for name in (REJECTS, *plan.extras)},
        index_sha256=file_sha256(out / INDEX),
        n_samples=n_samples,
        n_rejects=rejects.num_rows,
        shared_patients=tally.shared(),
        patients_known=plan.patients_known,
        config={**config.recorded(), **plan.origin},
        conversion=identity,
        **dataclasses.asdict(plan.about),
        studies=tally.studies(),
        flat_images=sum(fact.get("flat", 0) for fact in facts),
    )
    write_bytes(out / CARD, [card_bytes(card)], temporary_in=work)
    return card


def is_made(shard: Shard, out: Path, work: Path) -> bool:
    """Whether the tar of a shard is complete under its final name (or has no sample and so no tar)."""
    try:
        made = _sidecar(shard, work)
        return made["n"] == 0 or (out / f"{shard.name}.tar").stat().st_size == made["bytes"]
    except FileNotFoundError:
        return False


def _sidecar(shard: Shard, work: Path) -> dict[str, Any]:
    return json.loads((work / f"{shard.name}.json").read_bytes())


def _summary(shard: Shard, work: Path, *, sides: bool) -> dict[str, Any]:
    """Return a sidecar without its rows (memory must not grow with them); with their shorter sides where wanted."""
    fact = _sidecar(shard, work)
    done = fact.pop("done")
    if sides:
        fact["sides"] = Counter(map(min, zip(done.get("height", []), done.get("width", []), strict=True)))
    return fact


def _rejects(plan: Plan, facts: Sequence[dict[str, Any]]) -> list[tuple[str, str]]:
    return [(plan.cell("source", row), reason) for fact in facts for row, reason in fact["rejects"]]


def _write_index(path: Path, schema: pa.Schema, plan: Plan, shards: Sequence[Shard], work: Path, tally: _Tally) -> None:
    """Write row groups of equal length, so that the bytes do not depend on the tars' lengths."""
    with parquet.writer(path, schema) as writer:
        waiting: list[pa.Table] = []
        rows = 0
        for table in _index_tables(schema, plan, shards, work):
            tally.add(table)
            waiting.append(table)
            rows += table.num_rows
            if rows >= ROW_GROUP:
                whole = pa.concat_tables(waiting)
                full = rows - rows % ROW_GROUP
                writer.write_table(whole.slice(0, full), row_group_size=ROW_GROUP)
                waiting, rows = [whole.slice(full)], rows - full
        if rows:
            writer.write_table(pa.concat_tables(waiting), row_group_size=ROW_GROUP)


def _index_tables(schema: pa.Schema, plan: Plan, shards: Sequence[Shard], work: Path) -> Iterator[pa.Table]:
    for shard in shards:
        fact = _sidecar(shard, work)
        if not fact["n"]:
            continue
        done = fact["done"]
        rows = plan.rows(shard.first, shard.last).take(pa.array(np.array(done["row"], np.int64) - shard.first))
        made = {name: pa.array(done[name], schema.field(name).type) for name in ("offset", "size", "height", "width")}
        made["shard"] = pa.array([f"{shard.name}.tar"] * fact["n"], pa.string())
        yield pa.table(
            [made.get(name, rows[name] if name in rows.column_names else None) for name in schema.names], schema
        )


class _Tally:
    """Counts per split and label, taken while the index is written."""

    def __init__(self, labels: Sequence[str], patients_known: bool) -> None:
        self.labels, self.patients_known = labels, patients_known
        self.n: Counter[str] = Counter()
        self._patients: list[pa.Array] = []
        self._splits: list[np.ndarray] = []
        self._studies: list[pa.Array] = []
        self.values: dict[tuple[str, str], Counter[int | None]] = {}

    def add(self, table: pa.Table) -> None:
        split = table["split"][0].as_py()  # a tar holds one split only
        self.n[split] += table.num_rows
        patients = pc.unique(table["patient_id"])
        self._patients.append(patients)
        self._splits.append(np.full(len(patients), SPLITS.index(split), dtype=np.int8))
        if STUDY in table.column_names:
            self._studies.append(pc.unique(table[STUDY].drop_null()))
        for label in self.labels:
            for entry in pc.value_counts(table[LABEL + label]).to_pylist():
                self.values.setdefault((split, label), Counter())[entry["values"]] += entry["counts"]

    @functools.cached_property
    def members(self) -> np.ndarray:
        """Whether a patient is in a split, bool (splits, patients)."""
        return members_of_splits(pa.chunked_array(self._patients, pa.string()), np.concatenate(self._splits))

    def studies(self) -> int:
        return len(groups(pa.chunked_array(self._studies, pa.string()))[1]) if self._studies else 0

    def shared(self) -> dict[str, int]:
        return in_two_splits(self.members) if self.patients_known else {}

    def counts(self) -> dict[str, Any]:
        kinds = {"positive": 1, "negative": 0, "uncertain": -1, "null": None}
        return {
            split: {
                "n": self.n[split],
                "patients": int(self.members[SPLITS.index(split)].sum()),
                "labels": {
                    label: {kind: self.values[split, label][value] for kind, value in kinds.items()}
                    for label in self.labels
                },
            }
            for split in sorted(self.n)
        }


def _only_kept(table: pa.Table, plan: Plan, facts: Sequence[dict[str, Any]]) -> pa.Table:
    """Drop rows of samples that became rejects."""
    lost = [plan.cell("key", row) for fact in facts for row, _ in fact["rejects"]]
    return table.filter(pc.invert(pc.is_in(table["key"], value_set=pa.array(lost, pa.string()))))


def _grey_statistics(shards: Sequence[Shard], facts: Sequence[dict[str, Any]]) -> tuple[float, float]:
    """Return mean and standard deviation in [0, 1] over all train pixels, from exact integer sums."""
    train = [fact for shard, fact in zip(shards, facts, strict=True) if shard.split == "train" and fact["n"]]
    train = train or [fact for fact in facts if fact["n"]]
    count = sum(fact["pixel_count"] for fact in train)
    total = sum(fact["pixel_sum"] for fact in train)
    squares = sum(fact["square_sum"] for fact in train)
    variance = (squares * count - total * total) / (count * count)
    return round(total / count / 255, 8), round(math.sqrt(variance) / 255, 8)


def _image_size(config: ConvertConfig, facts: Sequence[dict[str, Any]]) -> int:
    if config.size is not None:
        return config.size
    sides = sum((fact["sides"] for fact in facts), Counter())
    return statistics.median_low(sides.elements())


def _write_parquet(path: Path, table: pa.Table, work: Path) -> None:
    write_with(path, lambda temporary: parquet.write_table(temporary, table), temporary_in=work)


def write_rejects_so_far(plan: Plan, shards: Sequence[Shard], out: Path, work: Path) -> list[tuple[str, str]]:
    """Write rejects.parquet of an unfinished conversion and return its rows that count as rejects."""
    found = list(plan.refused)
    for shard in shards:
        sidecar = work / f"{shard.name}.json"
        if sidecar.exists():
            found += _rejects(plan, [_sidecar(shard, work)])
            continue
        for name, _, _ in shard.chunks():
            header = chunk_header(work / name)
            if header is not None:
                found += _rejects(plan, [header])
    _write_parquet(out / REJECTS, reject_table(found, plan.left_out()), work)
    return sorted(found)
