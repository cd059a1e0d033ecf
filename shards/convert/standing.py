"""A conversion is planned once: its plan stands in OUT/.work, and every part and the merge read from there.

    OUT/.work/planned.json            what was planned, from which inputs and settings; written last
    OUT/.work/planned-MARK-*.parquet  the rows in final order, what is left out, the inputs with their stamps

A plan counts only where the settings, the code and everything it was made from are the same: otherwise the next part
makes another, and `shards.convert.engine` refuses it where it is of another conversion than the one that was begun.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa

from shards import parquet
from shards.atomic import temporary_name, write_bytes
from shards.convert import plan_file
from shards.convert.about import About
from shards.convert.config import ConvertConfig
from shards.convert.engine import open_work
from shards.convert.inputs import Inputs, noting, unchanged
from shards.convert.opener import FileOpener
from shards.convert.plan import Plan
from shards.convert.plan_file import PlanFile
from shards.convert.registry import plan
from shards.convert.spill import spilling
from shards.errors import InputError
from shards.format import CARD
from shards.locks import locked

NOTE = "planned.json"
LOCK = "planning.lock"
LONGEST_WAIT = 6 * 3600.0
"""Seconds that a part waits for another part's plan before it makes its own."""
NOT_IN_PLAN = ("out", "size", "quality", "image_format", "shard_size", "workers", "part", "merge")
NOT_IN_PLAN += ("max_rejects", "max_pixels")
"""Settings that leave the plan as it is."""
_FACTS = ("name", "labels", "refused", "split_scheme", "split_detail", "patients_known", "shared_patients", "notes")
_FACTS += ("source", "origin")
"""Fields of a plan that are kept as JSON."""


def planned(config: ConvertConfig, *, say: Callable[[str], None] = print) -> Plan:
    """Return what a conversion is going to do: the plan that stands in its work folder, or a new one, put there.

    Args:
        config: of the conversion.
        say: takes the lines meant for the user.

    Raises:
        InputError: the source cannot be used, or config.out holds something else.
        FailedError: the disk is full.
    """
    config.check()
    out = Path(config.out)
    if (out / CARD).exists():
        with spilling(out if os.access(out, os.W_OK) else None):
            made = plan(config)
            return dataclasses.replace(made, known_fingerprint=made.fingerprint)
    new = not out.exists()
    work = open_work(out)
    try:
        return _standing(config, work) or _plan_once(config, work, say)
    except BaseException:
        if new:
            _remove_empty(out, work)
        raise


def _plan_once(config: ConvertConfig, work: Path, say: Callable[[str], None]) -> Plan:
    with locked(work / LOCK, 0) as held:
        if held:
            return _standing(config, work) or _make(config, work, alone=True)
    say("another process plans this conversion; waiting for its plan")
    with locked(work / LOCK, LONGEST_WAIT) as held:
        _look_again(work)
        return _standing(config, work) or _make(config, work, alone=held)


def _make(config: ConvertConfig, work: Path, *, alone: bool) -> Plan:
    """Plan, and leave the plan for other parts. `alone`: no other process writes one, so what is left over goes."""
    inputs = Inputs(without=work.parent)
    with spilling(work), noting(inputs):
        made = plan(config)
        if type(made.opener) is not FileOpener:  # MedMNIST: planned in seconds
            return made
        mark = secrets.token_hex(4)
        tables = {"rows": made.table, "left": made.excluded, "inputs": inputs.table()}
        tables |= {f"extra-{number}": table for number, table in enumerate(made.extras.values())}
        for name, table in tables.items():
            assert isinstance(table, pa.Table)
            plan_file.write(_path(work, mark, name), table)
        facts = {name: getattr(made, name) for name in _FACTS}
        facts |= {
            "about": dataclasses.asdict(made.about),
            "extras": list(made.extras),
            "fingerprint": made.fingerprint,
            "root": made.opener.root,
            "rows": made.table.num_rows,
            "split_counts": made.split_counts,
        }
    body = json.dumps({"mark": mark, "of": _settings(config), "facts": facts}, sort_keys=True)
    check = hashlib.sha256(body.encode()).hexdigest()
    before = _noted(work)
    write_bytes(work / NOTE, [f"{body}\n{check}\n".encode()])
    if alone:
        _clean(work, {mark, before["mark"] if before else mark})
    return _read(work, json.loads(body))


def _clean(work: Path, marks: set[str]) -> None:
    """Remove what killed processes left, and old plans; another part may still read the plan before this one."""
    for path in [*work.glob("planned-*.parquet"), *work.glob(".planned-*.tmp")]:
        if not any(f"planned-{mark}-" in path.name for mark in marks):
            path.unlink(missing_ok=True)


def _noted(work: Path) -> dict[str, Any] | None:
    """Return what the note says; None where there is none, or a damaged one."""
    try:
        body, check = (work / NOTE).read_text().splitlines()
        return json.loads(body) if hashlib.sha256(body.encode()).hexdigest() == check else None
    except (OSError, ValueError):
        return None


def _standing(config: ConvertConfig, work: Path) -> Plan | None:
    """Return the kept plan; None where there is none, or it is of other settings, code or inputs."""
    noted = _noted(work)
    if noted is None or noted["of"] != json.loads(json.dumps(_settings(config))):
        return None
    try:
        inputs = parquet.read_table(_path(work, noted["mark"], "inputs"))
        return _read(work, noted) if unchanged(inputs) else None
    except InputError:  # damaged, or replaced at this moment: it is made again
        return None


def _read(work: Path, noted: dict[str, Any]) -> Plan:
    facts = noted["facts"]
    paths = {name: _path(work, noted["mark"], f"extra-{number}") for number, name in enumerate(facts["extras"])}
    kept = {name: facts[name] for name in _FACTS}
    for name in ("labels", "notes"):
        kept[name] = tuple(kept[name])
    kept["refused"] = tuple((source, reason) for source, reason in kept["refused"])
    table = PlanFile(_path(work, noted["mark"], "rows"), facts["split_counts"])
    if table.num_rows != facts["rows"]:
        raise InputError(f"{table.path} is damaged: it has {table.num_rows} rows, not {facts['rows']}")
    return Plan(
        **kept,
        table=table,
        excluded=PlanFile(_path(work, noted["mark"], "left")),
        opener=FileOpener(facts["root"]),
        extras={name: parquet.read_table(path) for name, path in paths.items()},
        about=About(**facts["about"]),
        known_fingerprint=facts["fingerprint"],
    )


def _path(work: Path, mark: str, name: str) -> Path:
    return work / f"planned-{mark}-{name}.parquet"


def _settings(config: ConvertConfig) -> dict[str, Any]:
    """Return what a plan depends on beside its inputs."""
    fields = (field.name for field in dataclasses.fields(config))
    settings = {name: getattr(config, name) for name in fields if name not in NOT_IN_PLAN}
    kind = f"{type(config).__module__}:{type(config).__qualname__}"
    return settings | {"kind": kind, "folder": os.getcwd(), "code": _code()}  # paths may be relative


@functools.cache
def _code() -> str:
    """Return a hash of this package: another version may plan in another way."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _look_again(work: Path) -> None:
    """Refresh a network file system's view of the folder: another machine has just written there."""
    probe = temporary_name(work, "look")
    probe.touch()
    probe.unlink(missing_ok=True)


def _remove_empty(out: Path, work: Path) -> None:
    """Remove the folders where nothing was planned."""
    try:
        if all(path.name == LOCK for path in work.iterdir()):
            (work / LOCK).unlink(missing_ok=True)
            work.rmdir()
            out.rmdir()
    except OSError:
        pass
