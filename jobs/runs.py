"""`cxrdist runs [DIR]`: all runs below a folder, one line each.

A login-node command: it reads a few small files a run, imports neither torch nor pyarrow, and does not ask SLURM
(`cxrdist status` does).
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from jobs._run_facts import COLUMNS, SETTING, below
from slurm.errors import InputError

HELP = "all runs below a folder: settings, state, AUROC, age and cost"
POSITIONALS = ("folder",)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Which runs to list, and how."""

    folder: str = "."
    """Folder that is searched at any depth, or a run."""
    where: str | None = None
    """Filters with blanks between, e.g. "state=silent init=scratch,imagenet"; a run must meet all. Keys of the
    configuration work too (optim.lr=0.001). None = no filter."""
    sort: str = "run"
    """Column to sort by; with a minus sign before it, largest first (--sort=-test_auroc)."""
    json: bool = False
    """One JSON object per run, for programs."""
    silent_after: Annotated[float, "(0, inf)"] = 30.0
    """Minutes without a sign of life after which a run that is not done is called silent."""


def main(words: Sequence[str]) -> int:
    """Run `cxrdist runs WORDS`."""
    from jobs.status import Parser

    parser = Parser("runs", HELP)
    parser.add_argument("folder", nargs="?", default=".", metavar="DIR", help="folder to search (default: here)")
    parser.add_argument("--where", help='filters, e.g. "state=silent init=scratch optim.lr=0.001"')
    parser.add_argument("--sort", default="run", help=f"{', '.join(COLUMNS)}; --sort=-NAME for largest first")
    parser.add_argument("--json", action="store_true", help="one JSON object per run, for programs")
    parser.add_argument(
        "--silent_after", type=float, default=30.0, help="minutes without a sign of life that mark a run (30)"
    )
    return run(Config(**vars(parser.parse_args(list(words)))))


def run(config: Config) -> int:
    """Print the runs."""
    if not config.silent_after > 0:
        raise InputError("--silent_after is a number of minutes above 0")
    top = Path(config.folder)
    if not config.folder.strip() or not top.is_dir():
        raise InputError(f"{config.folder or repr('')}: no such folder")
    key, falling = config.sort.removeprefix("-"), config.sort.startswith("-")
    if key not in COLUMNS:
        raise InputError(f"--sort {config.sort}: no such column; there are {', '.join(COLUMNS)}")
    found = _chosen(list(below(top, 60 * config.silent_after)), config.where)
    known = [fact for fact in found if fact.get(key) is not None]
    known.sort(key=lambda fact: _order(fact[key]), reverse=falling)
    found = [*known, *(fact for fact in found if fact.get(key) is None)]
    if config.json:
        for fact in found:
            print(json.dumps({name: value for name, value in fact.items() if name != SETTING}))
    else:
        _print(found, config)
    return 0


def _order(value: Any) -> tuple[bool, Any]:
    return (True, value) if isinstance(value, str) else (False, value)


def _chosen(facts: list[dict[str, Any]], where: str | None) -> list[dict[str, Any]]:
    """The runs that meet all filters.

    Raises:
        InputError: a filter is no column=value, or names neither a column nor a key of any configuration.
    """
    from results.cells.options import filters

    for text in filters(where):
        name, sign, values = text.partition("=")
        if not sign:
            raise InputError(f"--where {text!r} is not column=value; columns: {', '.join(COLUMNS)}")
        if name in COLUMNS:
            held = [fact.get(name) for fact in facts]
        else:
            settings: list[Mapping[str, Any]] = [fact[SETTING]() for fact in facts]
            if facts and not any(name in one for one in settings):
                raise InputError(f"--where {text!r}: no run has {name}; columns: {', '.join(COLUMNS)}")
            held = [one.get(name) for one in settings]
        wanted = [value.strip() for value in values.split(",")]
        facts = [fact for fact, value in zip(facts, held, strict=True) if _meets(value, wanted)]
    return facts


def _meets(value: Any, wanted: Iterable[str]) -> bool:
    """Whether a value is one of those written; numbers by size, nothing as none."""
    if value is None:
        return any(text in ("none", "null") for text in wanted)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value).lower() in {text.lower() for text in wanted}
    for text in wanted:
        try:
            if float(text) == value:
                return True
        except ValueError:
            continue
    return False


def _print(facts: list[dict[str, Any]], config: Config) -> None:
    """A table without the columns that say nothing, and how many runs are in which state."""
    if not facts:
        print(f"no runs below {config.folder}" + (" meet these filters" if config.where else ""), file=sys.stderr)
        return
    names = [name for name in COLUMNS if any(fact.get(name) is not None for fact in facts)]
    if all(fact.get("level") in (None, "image") for fact in facts):
        names = [name for name in names if name != "level"]  # a test AUROC by study is another number than one by image
    lines = [[COLUMNS[name].title for name in names]]
    lines += [[_mark(name, fact) for name in names] for fact in facts]
    widths = [max(len(line[place]) for line in lines) for place in range(len(names))]
    right = [isinstance(_first(facts, name), (int, float)) for name in names]
    for line in lines:
        cells = zip(line, widths, right, strict=True)
        print(
            "  ".join(text.rjust(width) if to_right else text.ljust(width) for text, width, to_right in cells).rstrip()
        )
    states = [str(fact.get("state")) for fact in facts]
    counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(sorted(states)))
    print(f"{len(facts)} run{'' if len(facts) == 1 else 's'}: {counts}")


def _mark(name: str, fact: Mapping[str, Any]) -> str:
    text = COLUMNS[name].text(fact.get(name))
    return f"{text} !" if name == "state" and text in ("silent", "failed", "damaged") else text


def _first(facts: Iterable[Mapping[str, Any]], name: str) -> Any:
    return next((fact[name] for fact in facts if fact.get(name) is not None), None)
