"""Settings that change nothing in a trial: refused where they are asked for, so that nobody believes that they do.

Free of torch. What a finished run's file says is read as it is, for runs of earlier versions hold such settings.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

from cxrdist.core.initialisation import KMEANS_PATCHES
from cxrdist.errors import InputError
from cxrdist.finetune.config import ClassifierHeadConfig, FinetuneConfig
from cxrdist.finetune.parse import get

_HEAD_USES = {
    "linear": (),
    "mlp": ("hidden", "dropout"),
    "dense": ("hidden", "layers", "dropout", "l2"),
    "rbf": ("rbf_l2", "rbf_gamma", "rbf_landmarks"),
}
"""Settings of the head that each kind has."""


def unused(config: FinetuneConfig) -> dict[str, str]:
    """The dotted keys that change nothing in this trial, and why."""
    why: dict[str, str] = {}
    if config.mode != "last_n":
        why |= dict.fromkeys(("last_n", "last_layers"), f"mode is {config.mode}, not last_n")
    elif config.last_layers is not None:
        why["last_n"] = "last_layers counts in its place"
    if config.mode != "two_stage":
        why["head_epochs"] = f"mode is {config.mode}, not two_stage"
    kind = config.head.kind
    uses = set(_HEAD_USES[kind]) | {"kind"}
    if kind == "linear" and config.mode == "linear":
        uses.add("probe_l2")
    for name in (field.name for field in dataclasses.fields(ClassifierHeadConfig)):
        if name not in uses:
            why[f"head.{name}"] = f"head.kind is {kind}" + (f" in mode {config.mode}" if name == "probe_l2" else "")
    if config.class_weights == "none":
        why["weight_factor"] = "class_weights is none"
    if config.init != KMEANS_PATCHES:
        why |= {f"kmeans.{field.name}": f"init is {config.init}" for field in dataclasses.fields(config.kmeans)}
    return why


def check_used(config: FinetuneConfig) -> None:
    """Refuse a trial with a setting, other than the default, that changes nothing.

    Raises:
        InputError: naming the setting and why.
    """
    usual = FinetuneConfig(shards=config.shards, out=config.out)
    for key, why in unused(config).items():
        if get(config, key) != get(usual, key):
            raise InputError(f"{key} = {get(config, key)!r} changes nothing: {why}; leave it out")


def check_used_somewhere(cells: Sequence[tuple[Iterable[str], FinetuneConfig]]) -> None:
    """Refuse keys of a sweep that change nothing in any of the cells that set them.

    Args:
        cells: for each cell the dotted keys that it sets, and its trial.

    Raises:
        InputError: naming the key, and why it changes nothing.
    """
    works: set[str] = set()
    idle: dict[str, str] = {}
    for keys, trial in cells:
        why = unused(trial)
        for key in keys:
            if key in why:
                idle.setdefault(key, why[key])
            else:
                works.add(key)
    for key, why in idle.items():
        if key not in works:
            raise InputError(f"{key} changes nothing in any cell: {why}; leave it out")
