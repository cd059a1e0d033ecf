"""`cxrdist init-profile NAME`: asks sinfo and writes a commented profile for this cluster."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

from slurm.errors import InputError

HELP = "Write a commented profile for this cluster, from what sinfo says."
POSITIONALS = ("name",)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """What the profile is called, and for which partition it is."""

    name: str
    """Name that --profile will take (the file lies in ~/.config/cxrdist/profiles), or a path ending in .toml."""
    partition: str | None = None
    """Partition; None = the one with the most GPUs on a node."""


def run(config: Config) -> None:
    """Write the file, and say what to do next."""
    from slurm import new_profile

    path = _path(config.name)
    if path.exists():
        raise InputError(f"{path} is there already and stays as it is; choose another name")
    found = new_profile.survey()
    text = new_profile.text(found, new_profile.choose(found, config.partition))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("x", encoding="utf-8") as out:
            out.write(text)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}; choose another name") from error
    print(f"{path}: look it through, then cxrdist doctor --profile {config.name}")


def _path(name: str) -> Path:
    from slurm import profiles

    if name.endswith(".toml") or "/" in name:
        if not name.endswith(".toml"):
            raise InputError(f"{name}: a path must end in .toml")
        return Path(os.path.expanduser(name))
    return profiles.own_folder() / f"{name}.toml"
