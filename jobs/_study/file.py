"""What a study file says: stages as in a chain, sweeps' specs, and values that `--set` gives.

title = "SimCLR against scratch on Kermany's X-rays"
report = "--labels pneumonia"          # options of `cxrdist report`
show = ["{out}/table.md"]              # text files that are printed at the end
closing = "Next: cxrdist explain {out}/sweep/cells/..."

[set]
seed = 0                               # the value where --set seed=... gives none
data.about = "folder with train, val and test, as downloaded"      # without a default it has to be given

[spec.grid.axes]                       # becomes DIR/specs/grid.toml, for --config {spec-grid}
seed = [0, 1, 2]

[[stage]]                              # and so on, as in a chain
name = "shards"
run = "shard kermany --src {set-data} --out {out}/shards"
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from slurm.chain import Stage, meant, read, refuse_unknown, stages_of
from slurm.errors import InputError

KEYS = ("title", "report", "show", "closing", "profile", "set", "spec", "stage")
PACKAGED = Path(__file__).parents[1] / "studies"
"""Study files that come with the program; their names do for their paths."""
NULL = "null"
"""As a default: nothing is given, and any kind of value may be."""
_PLACEHOLDER = re.compile(r"\{([A-Za-z][\w-]*)\}")
_NAME = re.compile(r"[A-Za-z][\w-]*")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Study:
    """A study file whose values are chosen; placeholders are not filled in yet."""

    path: Path
    text: str
    """The file as it is."""
    title: str
    values: dict[str, Any]
    """Name -> value, given or the file's."""
    defaults: dict[str, Any]
    """Name -> value where --set gives none; names that must be given are missing."""
    stages: list[Stage]
    """Each after those that it needs."""
    specs: dict[str, dict[str, Any]]
    """Name -> what its TOML file will hold."""
    report: tuple[str, ...]
    """Options of `cxrdist report`."""
    show: tuple[str, ...]
    closing: str

    def known(self, out: str, specs: str | None = None) -> dict[str, Any]:
        """Return placeholder -> value for a folder as it is to be spelled, its specs being in `specs`."""
        specs = f"{out}/specs" if specs is None else specs
        return {
            "out": out,
            **{f"set-{name}": value for name, value in self.values.items()},
            **{f"spec-{name}": f"{specs}/{name}.toml" for name in self.specs},
        }

    def record(self) -> dict[str, Any]:
        """Return what makes this study what it is, as plain data: where and how fast it runs is left out."""
        return {
            "set": self.values,
            "defaults": self.defaults,
            "spec": self.specs,
            "stage": {stage.name: {"run": list(stage.words), "needs": list(stage.needs)} for stage in self.stages},
        }


def find(name: str) -> Path:
    """Return the file of a study: a path, or the name of one that comes with the program.

    Raises:
        InputError: neither.
    """
    path = Path(name)
    if path.is_file():
        return path
    packaged = {found.stem: found for found in sorted(PACKAGED.glob("*.toml"))}
    if name in packaged:
        return packaged[name]
    what = "it is a folder" if path.is_dir() else "no such file"
    raise InputError(
        f"{name}: {what}, and no study of this name comes with cxrdist{meant(name, packaged)}; they are "
        f"{', '.join(packaged)}"
    )


def load(path: Path, given: Mapping[str, str] | None = None, *, chosen: Mapping[str, Any] | None = None) -> Study:
    """Return a study with its values chosen.

    Args:
        path: the file.
        given: --set's name -> text.
        chosen: name -> value that a folder was begun with; `given` wins.

    Raises:
        InputError: not a study, unknown names, values missing or of another kind than the file's own.
    """
    spec = read(path)
    refuse_unknown(spec, KEYS, str(path))
    about, defaults = _declared(spec.get("set", {}), path)
    values = {**defaults, **{name: value for name, value in (chosen or {}).items() if name in about}}
    for name, text in (given or {}).items():
        if name not in about:
            known = f"it has {', '.join(about)}" if about else "it has none"
            raise InputError(f"--set {name}: {path} has no such value{meant(name, about)}; {known}")
        values[name] = _as_kind(name, text, defaults.get(name, ""))
    study = Study(
        path=path, text=path.read_text(encoding="utf-8"), title=_text(spec, "title", path.stem, path),
        values=values, defaults=defaults, stages=stages_of(spec, path), specs=_specs(spec, path),
        report=_words(spec, path), show=_list(spec, "show", path), closing=_text(spec, "closing", "", path),
    )  # fmt: skip
    _check_placeholders(study, about)
    missing = [name for name in about if name not in values]
    if missing:
        raise InputError(
            f"{path} needs " + ", ".join(f"--set {name}=... ({about[name] or 'no default'})" for name in missing)
        )
    return study


def fill(text: str, known: Mapping[str, Any]) -> str:
    """Return text with its placeholders filled in."""
    return _PLACEHOLDER.sub(lambda match: _as_text(known[match[1]]), text)


def fill_value(value: Any, known: Mapping[str, Any]) -> Any:
    """Return a value of a spec with its placeholders filled in.

    A text that is one placeholder and nothing else takes the value's own kind; within a list, a list's items; where the
    value is null, which TOML cannot say, its key is left out.
    """
    if isinstance(value, dict):
        filled = {key: fill_value(item, known) for key, item in value.items()}
        return {key: item for key, item in filled.items() if item != NULL or value[key] == NULL}
    if isinstance(value, list):
        pairs = [(item, fill_value(item, known)) for item in value]
        return [
            part
            for item, found in pairs
            for part in (found if isinstance(item, str) and isinstance(found, list) else [found])
        ]
    if not isinstance(value, str):
        return value
    whole = _PLACEHOLDER.fullmatch(value)
    return known[whole[1]] if whole else fill(value, known)


def fill_stages(study: Study, known: Mapping[str, Any]) -> list[Stage]:
    """Return the stages with their commands filled in."""
    return [
        dataclasses.replace(
            stage, words=tuple(fill(word, known) for word in stage.words), about=fill(stage.about, known)
        )
        for stage in study.stages
    ]


def _declared(table: Any, path: Path) -> tuple[dict[str, str], dict[str, Any]]:
    """Name -> what it is; name -> its default, of those that have one."""
    if not isinstance(table, dict):
        raise InputError(f"{path}: set must be a table of names and their values")
    about: dict[str, str] = {}
    defaults: dict[str, Any] = {}
    for name, value in table.items():
        if not _NAME.fullmatch(name):
            raise InputError(f"{path}: set.{name}: a name is letters, digits, - and _, the first a letter")
        entry = value if isinstance(value, dict) else {"default": value}
        refuse_unknown(entry, ("about", "default"), f"{path}: set.{name}")
        if not isinstance(entry.get("about", ""), str):
            raise InputError(f"{path}: set.{name}.about must be text")
        about[name] = entry.get("about", "")
        if "default" in entry:
            if not isinstance(entry["default"], (str, bool, int, float, list)):
                raise InputError(f"{path}: set.{name}: its value must be text, a number, true or false, or a list")
            defaults[name] = entry["default"]
    return about, defaults


def _as_kind(name: str, text: str, like: Any) -> Any:
    """The value that a text gives where the file's own is `like`."""
    if like == NULL:
        with contextlib.suppress(ValueError, RecursionError):
            value = json.loads(text)
            if isinstance(value, (bool, int, float, list)) and _has_toml(value):
                return value
    if isinstance(like, str):
        if not text.strip() or not _is_text(text):
            raise InputError(f"--set {name}= is empty (a variable that is not set?) or no text; give it a value")
        return text
    wanted = {bool: "true or false", int: "a whole number", float: "a number", list: 'a list such as [1, 2] or ["a"]'}
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if isinstance(like, float) and type(value) is int:
        value = float(value)
    if type(value) is not type(like) or not _has_toml(value):
        raise InputError(f"--set {name}={text[:60]}: must be {wanted[type(like)]}, as {json.dumps(like)} is")
    return value


def _has_toml(value: Any) -> bool:
    """Whether a value that JSON gave can stand in a spec: no null, no NaN, no table, text that is UTF-8."""
    if isinstance(value, list):
        return all(map(_has_toml, value))
    if isinstance(value, str):
        return _is_text(value)
    return isinstance(value, (bool, int, float)) and value == value


def _is_text(text: str) -> bool:
    """Whether a file can hold it: no null byte, no bytes that are not UTF-8."""
    with contextlib.suppress(UnicodeEncodeError):
        return b"\0" not in text.encode()
    return False


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _text(spec: Mapping[str, Any], key: str, default: str, path: Path) -> str:
    value = spec.get(key, default)
    if not isinstance(value, str):
        raise InputError(f"{path}: {key} must be text")
    return value


def _list(spec: Mapping[str, Any], key: str, path: Path) -> tuple[str, ...]:
    value = spec.get(key, [])
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise InputError(f"{path}: {key} must be a list of texts")
    return tuple(value)


def _words(spec: Mapping[str, Any], path: Path) -> tuple[str, ...]:
    text = _text(spec, "report", "", path)
    try:
        return tuple(shlex.split(text))
    except ValueError as error:
        raise InputError(f"{path}: report = {text[:60]!r}: {error}") from error


def _specs(spec: Mapping[str, Any], path: Path) -> dict[str, dict[str, Any]]:
    specs = spec.get("spec", {})
    if not isinstance(specs, dict) or not all(isinstance(table, dict) for table in specs.values()):
        raise InputError(f"{path}: spec must hold tables, each a TOML file for --config: [spec.grid.axes]")
    if wrong := [name for name in specs if not _NAME.fullmatch(name)]:
        raise InputError(f"{path}: spec.{wrong[0]}: a name is letters, digits, - and _, the first a letter")
    return specs


def _check_placeholders(study: Study, about: Mapping[str, str]) -> None:
    known = ["out", *(f"set-{name}" for name in about), *(f"spec-{name}" for name in study.specs)]
    for where, text in _texts(study):
        for name in _PLACEHOLDER.findall(text):
            if name not in known:
                raise InputError(
                    f"{study.path}: {where}: {{{name}}} stands for nothing{meant(name, known)}; known are "
                    + ", ".join(f"{{{word}}}" for word in known)
                )


def _texts(study: Study) -> Iterator[tuple[str, str]]:
    """Every text in which placeholders are filled, and where it is."""
    for stage in study.stages:
        yield from ((f"stage {stage.name}", text) for text in (*stage.words, stage.about))
    yield from (("report", text) for text in study.report)
    yield from (("show", text) for text in study.show)
    yield "closing", study.closing
    for name, table in study.specs.items():
        yield from ((f"spec.{name}", text) for text in _strings(table))


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, (dict, list)):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _strings(item)


def pairs(words: Sequence[str]) -> dict[str, str]:
    """Return name -> text of --set's words.

    Raises:
        InputError: one without =, or a name given twice.
    """
    found: dict[str, str] = {}
    for word in words:
        name, equals, text = word.partition("=")
        if not equals or not name:
            raise InputError(f"--set {word}: give it as NAME=VALUE")
        if name in found:
            raise InputError(f"--set {name} is given twice")
        found[name] = text
    return found
