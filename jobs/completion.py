"""`cxrdist completion bash|zsh`: a script that completes commands, options and choices; made by shtab."""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import types
import typing
from typing import Any, Literal

HELP = "Print a script that completes commands and options in bash or zsh."
POSITIONALS = ("shell",)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """For which shell."""

    shell: Literal["bash", "zsh"]
    """The shell."""


def run(config: Config) -> None:
    """Print the script."""
    import shtab

    print(shtab.complete(parser(), config.shell))


def parser() -> argparse.ArgumentParser:
    """All commands with their options and choices, for completion alone: what is typed is read by `jobs.cli`."""
    from jobs.cli import COMMANDS, module_name

    top = argparse.ArgumentParser(prog="cxrdist")
    commands = top.add_subparsers()
    for name, text in COMMANDS.items():
        module = importlib.import_module(module_name(name))
        command = commands.add_parser(name, help=_plain(text))
        configs = getattr(module, "CONFIGS", None)
        if configs is None:
            _add(command, module.Config, getattr(module, "POSITIONALS", ()))
            continue
        kinds = command.add_subparsers()
        for kind in configs:
            summary = _plain(module.SUMMARIES.get(kind, ""))
            _add(kinds.add_parser(kind, help=summary), configs[kind], getattr(module, "POSITIONALS", ()))
    for name in ("submit", "study"):
        _add_submit(commands.choices[name])
    for name in ("--out", "--set"):
        commands.choices["study"].add_argument(name).complete = _FILES  # type: ignore[attr-defined]
    return top


def _add(parser: argparse.ArgumentParser, config: type, positionals: typing.Sequence[str]) -> None:
    from cxrdist.core.configs import settings

    parser.add_argument("--config").complete = _FILES  # type: ignore[attr-defined]
    for name, kind in settings(config):
        choices = _choices(kind)
        if name in positionals:
            many: dict[str, Any] = {"nargs": "*"} if typing.get_origin(kind) is list else {}
            action = parser.add_argument(name, choices=choices, **many)
        else:
            action = parser.add_argument(f"--{name}", choices=choices)
        if choices is None and _is_text(kind):
            action.complete = _FILES  # type: ignore[attr-defined]


def _add_submit(parser: argparse.ArgumentParser) -> None:
    from jobs._tasks import OPTIONS
    from slurm.profiles import names

    for name, text in OPTIONS.items():
        if name == "dry_run":
            parser.add_argument("--dry_run", action="store_true", help=_plain(text))
        else:
            parser.add_argument(f"--{name}", choices=names() if name == "profile" else None, help=_plain(text))


_FILES = {"bash": "_shtab_compgen_files", "zsh": "_files"}
"""Completes names of files and folders."""


def _plain(text: str) -> str:
    """Help as the scripts can hold it."""
    return text.replace("%", "%%").replace("'", "").replace("`", "")


def _choices(kind: Any) -> list[str] | None:
    """The words that a setting may be: those of a Literal, true and false; None for others."""
    if typing.get_origin(kind) is typing.Annotated:
        kind = typing.get_args(kind)[0]
    if kind is bool:
        return ["true", "false"]
    found = [kind]
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        found = [one for one in typing.get_args(kind) if one is not type(None)]
    literals = [one for one in found if typing.get_origin(one) is Literal]
    return [str(word) for one in literals for word in typing.get_args(one)] or None


def _is_text(kind: Any) -> bool:
    parts = typing.get_args(kind) if typing.get_origin(kind) in (typing.Union, types.UnionType, list) else (kind,)
    return str in parts
