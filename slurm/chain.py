"""A chain of jobs in one TOML file: stages, what each runs, and which others must be complete before it."""

from __future__ import annotations

import dataclasses
import difflib
import re
import shlex
import tomllib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from slurm.errors import InputError

SUBMIT_KEYS = ("profile", "nodes", "min_nodes", "gpus", "parts", "partition", "time")
"""Keys of a stage that are options of `cxrdist submit`; a study on one machine has no use for them."""
KEYS = ("name", "about", "run", "needs", "takes", *SUBMIT_KEYS)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stage:
    """One job (or job array) of a chain."""

    name: str
    """Unique within the chain; also the job's name."""
    words: tuple[str, ...]
    """The command as after `cxrdist`: a job's name and its options."""
    needs: tuple[str, ...] = ()
    """Names of the stages whose output it reads."""
    options: tuple[str, ...] = ()
    """Options of `cxrdist submit` for this stage (--nodes 2 ...)."""
    about: str = ""
    """What it does, for people."""
    takes: str = ""
    """What it took its author, for people ("90 s on 2 cores")."""


def load(path: Path) -> list[Stage]:
    """Return the stages of a chain file, each after the ones that it needs.

        profile = "gpu"                     # for all stages that name no other

        [[stage]]
        name = "shards"
        run = "shard nih --src /data/nih --out shards/nih"
        parts = 8

        [[stage]]
        name = "simclr"
        needs = ["shards"]
        run = "pretrain --config simclr.toml --shards shards/nih --out runs/simclr"
        nodes = 2

    Raises:
        InputError: unreadable, unknown keys, doubled or missing names, a circle of needs.
    """
    spec = read(path)
    if "set" in spec or "{out}" in str(spec.get("stage")):
        raise InputError(f"{path} is a study with values to fill in: cxrdist study run {path} --out DIR --profile NAME")
    refuse_unknown(spec, ("stage", "profile"), str(path))
    return stages_of(spec, path)


def read(path: Path) -> dict[str, Any]:
    """Return what a TOML file holds.

    Raises:
        InputError: unreadable, or not TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"{path}: not TOML: {error}") from error


def refuse_unknown(table: Iterable[str], known: Sequence[str], where: str) -> None:
    """Refuse keys that mean nothing, with the nearest that do.

    Raises:
        InputError: naming the first.
    """
    for key in table:
        if key not in known:
            raise InputError(f"{where}: unknown key {key!r}{meant(key, known)}; known are {', '.join(known)}")


def meant(word: str, known: Iterable[str]) -> str:
    """Return " (did you mean X?)" where a known word is near, otherwise nothing."""
    near = difflib.get_close_matches(word, list(known), n=1)
    return f" (did you mean {near[0]}?)" if near else ""


def stages_of(spec: dict[str, Any], path: Path) -> list[Stage]:
    """Return the stages in what `read` gave, each after the ones that it needs.

    Raises:
        InputError: no stages, unknown keys, doubled or missing names, a circle of needs.
    """
    if not spec.get("stage"):
        raise InputError(f"{path}: no [[stage]] in it")
    tables = spec["stage"]
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise InputError(f"{path}: stage = {str(tables)[:60]!r}: must be tables, each begun with [[stage]]")
    if not isinstance(spec.get("profile", ""), str):
        raise InputError(f"{path}: profile = {spec['profile']!r}: must be the name of a profile, or its file")
    stages = [_stage(table, spec.get("profile"), path) for table in tables]
    return _ordered(stages, path)


def _stage(table: dict, profile: str | None, path: Path) -> Stage:
    where = f"{path}: stage {table.get('name', '(without a name)')!r}"
    refuse_unknown(table, KEYS, where)
    name, run = table.get("name"), table.get("run")
    if not isinstance(name, str) or not re.fullmatch(r"[\w-][\w.-]{0,99}", name):
        raise InputError(f"{where}: name must be letters, digits and -_. only, 100 at most, the first not a dot")
    try:
        words = shlex.split(run) if isinstance(run, str) else run
    except ValueError as error:
        raise InputError(f"{where}: run = {str(run)[:60]!r}: {error}") from error
    if not isinstance(words, list) or not words or not all(isinstance(word, str) for word in words):
        raise InputError(f'{where}: run must be a command such as "pretrain --shards DIR --out RUN"')
    needs = table.get("needs", [])
    if not isinstance(needs, list) or not all(isinstance(need, str) for need in needs):
        raise InputError(f"{where}: needs must be a list of stage names")
    options: list[str] = []
    values = {"profile": profile} | table
    for key in SUBMIT_KEYS:
        if isinstance(values.get(key), (list, dict)):
            raise InputError(f"{where}: {key} = {str(values[key])[:60]}: must be one value")
        if values.get(key) is not None:
            options += [f"--{key}", str(values[key])]
    about, takes = table.get("about", ""), table.get("takes", "")
    if not isinstance(about, str) or not isinstance(takes, str):
        raise InputError(f"{where}: about and takes must be text")
    return Stage(name=name, words=tuple(words), needs=tuple(needs), options=tuple(options), about=about, takes=takes)


def _ordered(stages: Sequence[Stage], path: Path) -> list[Stage]:
    names = [stage.name for stage in stages]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"{path}: two stages are called {name!r}")
    for stage in stages:
        for need in stage.needs:
            if need not in names:
                raise InputError(
                    f"{path}: stage {stage.name!r} needs {need!r}, which is not one of {', '.join(names)}"
                    f"{meant(need, names)}"
                )
    ordered: list[Stage] = []
    waiting = list(stages)
    while waiting:
        placed = {stage.name for stage in ordered}
        ready = [stage for stage in waiting if placed.issuperset(stage.needs)]
        if not ready:
            raise InputError(f"{path}: stages {', '.join(stage.name for stage in waiting)} need each other in a circle")
        ordered += ready
        waiting = [stage for stage in waiting if stage not in ready]
    return ordered
