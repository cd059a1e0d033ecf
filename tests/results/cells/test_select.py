"""Results that do not belong together are refused, kept apart or cautioned."""

from __future__ import annotations

from pathlib import Path

import pytest

from results.cells.options import Options
from results.collect import collect
from results.errors import InputError
from results.tables.registry import build
from tests.results import simulate
from tests.results.grids import grid


@pytest.mark.parametrize(
    ("column", "change", "allow", "message"),
    [
        ("split_scheme", {"split_scheme": "list"}, "splits", "several split schemes"),
        (
            "label_policy",
            {"label_policy": "zeros/zeros", "n": {"val": 120, "test": 150}},
            "policies",
            "several label policies",
        ),
    ],
)
def test_mixed_schemes_and_policies_are_refused_unless_asked_for(
    tmp_path: Path, column: str, change: dict, allow: str, message: str
) -> None:
    results = grid(tmp_path, one={}, two=change)
    with pytest.raises(InputError, match=f"{message}.*--allow {allow}"):
        build("label-efficiency", results, Options())
    table = build("label-efficiency", results, Options(allow=(allow,)))
    assert len(table.row_names) == 2, "what was mixed becomes a row and is not averaged"
    one = build("label-efficiency", results, Options(where=(f"{column}={next(iter(change.values()))}",)))
    assert one.column_names == ("two",)


def test_two_runs_of_one_seed_in_a_cell_are_refused_with_what_differs(tmp_path: Path) -> None:
    results = grid(tmp_path, one={"config": {"n_boot": 100}, "git_commit": "a" * 7})
    results = grid(tmp_path, one={"config": {"n_boot": 200}, "git_commit": "b" * 7})
    with pytest.raises(InputError, match=r"share seed 0.*git_commit: [ab]{7} and [ab]{7}.*--allow seeds"):
        build("label-efficiency", results, Options())
    assert build("label-efficiency", results, Options(allow=("seeds",))).cells[0][0].n == 2  # type: ignore[union-attr]


def test_axis_that_varies_inside_a_cell_becomes_a_row_or_is_refused(tmp_path: Path) -> None:
    grid(tmp_path, one={"mode": "linear"})
    results = grid(tmp_path, one={"mode": "full"})
    assert build("label-efficiency", results, Options()).row_titles[0] == "Mode"
    with pytest.raises(InputError, match="mode takes 2 values"):
        build("label-efficiency", results, Options(rows=("label_fraction",)))
    assert len(build("label-efficiency", results, Options(rows=("label_fraction",), where=("mode=full",))).cells) == 1


def test_encoders_of_one_name_but_different_runs_are_kept_apart(tmp_path: Path) -> None:
    grid(tmp_path, **{"simclr:nih": {"init_signature": "a" * 12}})
    results = grid(tmp_path, **{"simclr:nih": {"init_signature": "b" * 12}})
    assert build("label-efficiency", results, Options()).column_names == ("simclr:nih (aaaaaa)", "simclr:nih (bbbbbb)")


def test_unequal_labelled_subsets_are_cautioned(tmp_path: Path) -> None:
    results = grid(tmp_path, one={"fraction_hash": "x"}, two={"fraction_hash": "y"})
    assert any("did not see the same labelled images" in note for note in build("label-efficiency", results).notes)


def test_policies_of_training_alone_are_no_mixture(tmp_path: Path) -> None:
    """A test set without uncertain labels has the same truths under every policy."""
    for policy in ("ones", "ignore"):
        simulate.finetune(
            tmp_path, label_policy=f"{policy}/zeros", config={"uncertain": policy}, intervals=False, history=False
        )
    table = build("label-efficiency", collect(tmp_path)[0], Options(test=False))
    assert [names[0] for names in table.row_names] == ["ignore/zeros", "ones/zeros"]
