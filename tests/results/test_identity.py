"""Configurations as plain values, and what identifies one."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from results.identity import differences, plain, signature

CONFIG = {"lr": 0.1, "epochs": 3, "cache": None, "optim": {"name": "sgd", "fused": True}, "labels": ("edema", "mass")}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inner:
    """A section."""

    lr: float = 0.1
    widths: tuple[int, ...] = (8, 4)
    cache: str | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outer:
    """A configuration."""

    out: Path
    labels: list[str] | None = None
    optim: Inner = dataclasses.field(default_factory=Inner)


def test_a_plain_configuration_holds_what_toml_can_hold_and_no_none() -> None:
    made = plain(Outer(out=Path("runs/a")))
    assert made == {"out": "runs/a", "optim": {"lr": 0.1, "widths": [8, 4]}}
    assert plain(made) == made


def test_differences_name_the_settings_by_their_whole_name() -> None:
    held = {"lr": 0.1, "epochs": 3, "optim": {"name": "sgd", "fused": True}, "labels": ["edema", "mass"]}
    assert differences(held, CONFIG | {"lr": 0.10}) == []
    changed = CONFIG | {"epochs": 4, "optim": {"name": "adam", "fused": True}, "cache": "x"}
    assert differences(held, changed, ["epochs"]) == [
        'cache is None there, "x" here',
        'optim.name is "sgd" there, "adam" here',
    ]


def test_signature_ignores_order_unset_values_and_what_it_is_told_to() -> None:
    reordered = dict(reversed(list(CONFIG.items())))
    assert signature(CONFIG) == signature(reordered)
    assert signature(CONFIG) == signature({key: value for key, value in CONFIG.items() if value is not None})
    assert signature(CONFIG | {"lr": 0.2}) != signature(CONFIG)
    assert signature(CONFIG | {"lr": 0.2}, ["lr"]) == signature(CONFIG, ["lr"])
    changed = CONFIG | {"optim": {"name": "sgd", "fused": False}}
    assert signature(changed) != signature(CONFIG)
    assert signature(changed, ["optim.fused"]) == signature(CONFIG, ["optim.fused"])
    assert len(signature(CONFIG)) == 12 and int(signature(CONFIG), 16) >= 0
