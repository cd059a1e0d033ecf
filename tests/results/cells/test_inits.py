"""What several encoders of one name are called."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from results.cells.options import Options
from results.collect import collect
from results.tables.registry import build
from tests.results import simulate


def names(folder: Path, *inputs: str) -> tuple[str, ...]:
    """The columns of a label-efficiency table."""
    table = build("label-efficiency", collect([folder / name for name in inputs])[0], Options(test=False))
    return table.column_names


def encoders(folder: Path, *settings: dict[str, Any]) -> list[str]:
    """Pretraining runs with these settings and a fine-tuning of each; their signatures."""
    found = []
    for place, held in enumerate(settings):
        run = simulate.pretrain(folder / "pretrained", **held)
        found.append(str(run.read_info()["signature"]))
        simulate.finetune(
            folder / "tuned" / str(place),
            init="simclr:nih",
            init_signature=found[-1],
            labels={"edema": 0.8},
            history=False,
        )
    return found


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ([{"seed": 0}, {"seed": 3}], ("seed=0", "seed=3")),
        ([{"changes": {"augment": {"blur": [0.1, 1.0]}}}, {"changes": {"augment": {"off": ["blur"]}}}], None),
        (
            [{"changes": {"temperature": 0.1}}, {"changes": {"temperature": 0.5}}],
            ("temperature=0.1", "temperature=0.5"),
        ),
        ([{"seed": 0}, {"seed": 1, "changes": {"temperature": 0.5}}], None),
    ],
)
def test_encoders_of_one_name_are_called_by_the_one_setting_in_which_they_differ(
    tmp_path: Path, settings: list[dict[str, Any]], said: tuple[str, ...] | None
) -> None:
    signatures = encoders(tmp_path, *settings)
    told = said or tuple(signature[:6] for signature in signatures)
    assert sorted(name for name in names(tmp_path, "tuned", "pretrained") if "(" in name) == sorted(
        f"simclr:nih ({one})" for one in told
    )


def test_encoders_whose_runs_are_not_among_the_results_are_called_by_their_signatures(tmp_path: Path) -> None:
    signatures = encoders(tmp_path, {"seed": 0}, {"seed": 1})
    assert {f"simclr:nih ({one[:6]})" for one in signatures} <= set(names(tmp_path, "tuned"))


def test_one_encoder_keeps_its_name(tmp_path: Path) -> None:
    encoders(tmp_path, {"seed": 1})
    assert "simclr:nih" in names(tmp_path, "tuned", "pretrained")
