"""A user's own names for encoders: a TOML list that says for each what `--init`, architecture and pixels it stands for.

CXRDIST_INITS names the file; else it is ~/.config/cxrdist/inits.toml (XDG_CONFIG_HOME). Free of torch.

    [rad-dino]
    init = "hf://microsoft/rad-dino@main"

    [ours-vit]
    init = "/data/encoders/ours.pth"
    arch = "vit_small_patch16_224"
    init_mean = 0.5
    init_std = 0.25
"""

from __future__ import annotations

import dataclasses
import os
import re
import tomllib
from collections.abc import Callable, Container
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

from cxrdist.core.configs import from_dict
from cxrdist.errors import InputError

ENVIRONMENT = "CXRDIST_INITS"
_WORDS = ("scratch", "imagenet", "kmeans-patches")


@dataclass(frozen=True, kw_only=True)
class NamedInit:
    """An entry of the list."""

    init: str
    """What `--init` would be: a file, a run, or an address on the hub; relative paths count from the list's folder."""
    arch: str | None = None
    """timm name, where the weights do not tell."""
    image_size: Annotated[int | None, "[8, 4096]"] = None
    """Side in pixels; None: that of the weights."""
    init_mean: Annotated[float | None, "(-inf, inf)"] = None
    """Mean of the pixels that the weights expect, of grey values in [0, 1], where they do not tell."""
    init_std: Annotated[float | None, "(0, inf)"] = None
    """The deviation that belongs to `init_mean`."""


Config = TypeVar("Config")


def place() -> Path:
    """The file of the list; it need not exist."""
    if given := os.environ.get(ENVIRONMENT):
        return Path(given).expanduser()
    config = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    return config / "cxrdist" / "inits.toml"


def listed() -> dict[str, NamedInit]:
    """All entries by name; empty where there is no list.

    Raises:
        InputError: the list cannot be read, or an entry has a wrong key, type or name.
    """
    file = place()
    if not file.is_file():
        if ENVIRONMENT in os.environ:
            raise InputError(f"{ENVIRONMENT} names {file}, which does not exist")
        return {}
    try:
        held = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{file} is no list of encoders: {error}") from error
    found: dict[str, NamedInit] = {}
    for name, values in held.items():
        if not isinstance(values, dict) or not re.fullmatch(r"[\w.-]+", name) or name in _WORDS:
            raise InputError(
                f"{file}: [{name}] must be a table named by letters, digits, - and _, not {' or '.join(_WORDS)}"
            )
        entry = from_dict(NamedInit, values, f"{file}: [{name}]")
        local = "://" not in entry.init and not entry.init.startswith("$")
        init = os.path.abspath(file.parent / Path(entry.init).expanduser()) if local else entry.init
        found[name] = dataclasses.replace(entry, init=init)
    return found


def entry(init: str) -> NamedInit | None:
    """What the list says of a name; None for a word that it does not have, and for a file or folder of that name."""
    if not re.fullmatch(r"[\w.-]+", init) or Path(init).exists():
        return None
    return listed().get(init)


def expanded(config: Config) -> Config:
    """A configuration whose `init` is a name of the list, with what the entry says in its place; else as it is.

    What the configuration says itself stays; a setting with its default counts as not said (see `unseen`).
    """
    asked: Any = config
    named = entry(asked.init)
    if named is None:
        return config
    fields = {field.name for field in dataclasses.fields(asked)}
    blank = {field.name: field.default for field in dataclasses.fields(asked)}
    settings = {
        name: value for name, value in dataclasses.asdict(named).items() if value is not None and name in fields
    }
    kept = {name: value for name, value in settings.items() if name == "init" or getattr(asked, name) == blank[name]}
    return dataclasses.replace(asked, **kept)


def unseen(config: Any, given: Callable[[], Container[str]]) -> str | None:
    """What a name of the list would replace although it was asked for, which `expanded` cannot see: it is the default.

    Args:
        config: as it was asked for.
        given: the settings that were; not called where no name of the list is used.

    Returns:
        One line, or None.
    """
    init = getattr(config, "init", None)
    named = entry(init) if isinstance(init, str) else None
    if named is None:
        return None
    for field in dataclasses.fields(config):
        value, own = getattr(config, field.name), getattr(named, field.name, None)
        if field.name == "init" or own is None or value is None or value != field.default or value == own:
            continue
        if field.name in given():
            return (
                f"{field.name} is given as {value}, but init {init} stands for {field.name} = {own} ({place()}); leave "
                f"{field.name} out, or give the weights themselves: --init {named.init}"
            )
    return None


def name_of(path: Path) -> str | None:
    """The name that the list gives a file of weights, or the run that it lies in; None where it has none."""
    wanted = {str(path), str(path.parent)} if path.name == "encoder.safetensors" else {str(path)}
    try:
        return next((name for name, entry in listed().items() if entry.init in wanted), None)
    except InputError:
        return None
