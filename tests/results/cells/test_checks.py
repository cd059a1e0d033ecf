"""What a cell may average: one configuration, one test set; what differs is named, and can be an axis or a filter."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from results import configs
from results.cells import config_keys
from results.cells.options import Options
from results.collect import collect
from results.errors import InputError
from results.figures.registry import draw
from results.tables.registry import build
from tests.results import simulate

PLAIN = Options(test=False)


def run(folder: Path, seed: int, config: dict[str, Any], **more: Any) -> None:
    simulate.finetune(folder, seed=seed, config=config, intervals=False, history=False, **more)


@pytest.fixture(scope="module")
def two_rates(tmp_path_factory: pytest.TempPathFactory) -> pa.Table:
    """Seeds 0 and 1 with a rate of 0.1, seed 2 with 0.2: collected, and the run folders gone."""
    folder = tmp_path_factory.mktemp("rates")
    for seed, rate in enumerate((0.1, 0.1, 0.2)):
        run(folder / "runs", seed, {"optim": {"lr": rate}, "threshold": "f1"})
    collect(folder / "runs", folder / "all.parquet")
    shutil.rmtree(folder / "runs")
    return collect(folder / "all.parquet")[0]


@pytest.mark.parametrize("name", ["label-efficiency", "per-class", "models", "transfer"])
def test_runs_that_differ_in_more_than_their_seed_are_refused_and_the_keys_named(
    name: str, two_rates: pa.Table
) -> None:
    with pytest.raises(InputError, match=r"optim\.lr \(0\.1 in 2 runs, 0\.2 in 1\).*--rows.*--where optim\.lr=0\.1"):
        build(name, two_rates, PLAIN)


def test_a_key_of_the_configuration_is_an_axis_or_a_filter(two_rates: pa.Table) -> None:
    for options, counts in (
        (Options(test=False, rows=("label_fraction", "optim.lr")), [[2], [1]]),
        (Options(test=False, columns=("optim.lr",)), [[2, 1]]),
        (Options(test=False, where=("optim.lr=0.1",)), [[2]]),
        (Options(test=False, where=("optim.lr=1e-1,0.2",), columns=("optim.lr",)), [[2, 1]]),
        (Options(test=False, allow=("configs",)), [[3]]),
    ):
        table = build("label-efficiency", two_rates, options)
        assert [[cell.n for cell in line if cell] for line in table.cells] == counts
    assert build("label-efficiency", two_rates, Options(test=False, columns=("optim.lr",))).column_names == (
        "0.1",
        "0.2",
    )
    assert any("1 cell averages runs that differ in more than their seed, in optim.lr" in note for note in table.notes)
    for options, message in (
        (Options(where=("optim.lr=3",)), "the values are: 0.1, 0.2"),
        (Options(where=("optim.rate=3",)), "configuration keys: .*optim.lr"),
        (Options(rows=("optim.rate",)), "the configuration's .*optim.lr"),
    ):
        with pytest.raises(InputError, match=message):
            build("label-efficiency", two_rates, options)


def test_an_ablation_takes_a_key_of_the_configuration(two_rates: pa.Table) -> None:
    table = build("ablation", two_rates, Options(rows=("optim.lr",), reference="0.1", test=False))
    assert [names for names in table.row_names] == [("0.1",), ("0.2",)]


def test_the_rule_of_the_threshold_matters_to_what_depends_on_it_alone(tmp_path: Path) -> None:
    for seed, rule in enumerate(("f1", "f1", "balanced_accuracy")):
        run(tmp_path, seed, {"threshold": rule})
    results = collect(tmp_path)[0]
    assert build("label-efficiency", results, PLAIN).cells[0][0].n == 3  # type: ignore[union-attr]
    with pytest.raises(InputError, match=r"threshold \(balanced_accuracy in 1 run, f1 in 2\)"):
        build("label-efficiency", results, Options(metric="accuracy", test=False))


def test_what_changes_no_value_is_no_difference(tmp_path: Path) -> None:
    for seed, more in enumerate(({"n_boot": 10}, {"n_boot": 20}, {"eval_shards": ["a"], "workers": 3})):
        run(tmp_path, seed, more)
    assert build("label-efficiency", collect(tmp_path)[0], PLAIN).cells[0][0].n == 3  # type: ignore[union-attr]


def test_captions_of_thresholded_metrics_name_the_rule(tmp_path: Path) -> None:
    run(tmp_path, 0, {}, threshold_rule="sensitivity=0.9")
    run(tmp_path, 0, {"mode": "linear", "threshold": "f1"}, mode="linear")
    results = collect(tmp_path)[0]
    for name, options in (("models", Options()), ("label-efficiency", Options(metric="recall"))):
        caption = build(name, results, options).caption
        assert (
            "Thresholds chosen on validation images: highest F1 and the highest one with a sensitivity of at least"
            in (caption)
        )
    assert "Thresholds" not in build("label-efficiency", results, PLAIN).caption
    assert "sensitivity of at least 0.9" in draw("confusion", results).caption


def test_settings_that_differ_between_cells_are_named_below_the_table(tmp_path: Path) -> None:
    for init, rate in (("one", 0.1), ("two", 0.2)):
        run(tmp_path, 0, {"optim": {"lr": rate}}, init=init)
    note = "The runs differ beyond what the table shows in optim.lr (0.1 and 0.2)."
    assert note in build("label-efficiency", collect(tmp_path)[0], PLAIN).notes
    run(tmp_path / "named", 0, {"optim": {"lr": 0.2}}, variant="optim.lr=0.2")
    run(tmp_path / "named", 0, {"optim": {"lr": 0.1}})
    assert not any("beyond" in note for note in build("ablation", collect(tmp_path / "named")[0], PLAIN).notes)


def test_a_run_does_not_differ_from_itself_because_auroc_has_no_threshold(tmp_path: Path) -> None:
    run(tmp_path, 0, {"threshold": "f1", "optim": {"lr": 0.1}})
    assert not any("beyond" in note for note in build("metrics", collect(tmp_path)[0], PLAIN).notes)
    run(tmp_path, 0, {"threshold": "0.5", "optim": {"lr": 0.1}}, init="two")
    notes = build("metrics", collect(tmp_path)[0], PLAIN).notes
    assert "The runs differ beyond what the table shows in threshold (0.5 and f1)." in notes


def test_a_variant_s_name_does_not_split_what_is_one_configuration(tmp_path: Path) -> None:
    for seed, name in enumerate(("policy=ones", "uncertain=ones")):
        run(tmp_path, seed, {}, variant=name)
    results = collect(tmp_path)[0]
    assert len(set(results["config"].to_pylist())) == 1, "the variant is a name and no setting"
    assert build("label-efficiency", results, PLAIN).cells[0][0].n == 2  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"n": {"val": 120, "test": 150}}, "n_p[a-z]+ is [0-9]+ and [0-9]+"),
        ({"data_seed": 9}, "n_p[a-z]+ is [0-9]+ and [0-9]+|other images or other truths"),
    ],
)
def test_seeds_tested_on_other_images_or_truths_of_one_name_are_refused(
    other: dict[str, Any], message: str, tmp_path: Path
) -> None:
    run(tmp_path, 0, {})
    run(tmp_path, 1, {}, **other)
    results = collect(tmp_path)[0]
    with pytest.raises(InputError, match=f"different test sets of the name phantom: ({message}).*--allow sets"):
        build("label-efficiency", results, PLAIN)
    assert build("label-efficiency", results, Options(test=False, allow=("sets",))).cells[0][0].n == 2  # type: ignore[union-attr]


def test_equal_counts_do_not_hide_other_truths(tmp_path: Path) -> None:
    """The truths of two patients are exchanged: counts stay, and only the predictions tell."""
    from results.schema import read_predictions, write_predictions

    for seed in range(2):
        run(tmp_path, seed, {}, labels={"edema": 0.8})
    results = collect(tmp_path)[0]
    assert build("per-class", results, PLAIN).cells[0][0].n == 2  # type: ignore[union-attr]
    path = Path(results["source"][0].as_py()).with_name("predictions.parquet")
    table = read_predictions(path)
    truth = table["y_true"].to_pylist()
    test = [place for place, split in enumerate(table["split"].to_pylist()) if split == "test"]
    one, zero = (next(place for place in test if truth[place] == wanted) for wanted in (1, 0))
    truth[one], truth[zero] = truth[zero], truth[one]
    write_predictions(path, table.set_column(6, "y_true", pa.array(truth, pa.int8())))
    with pytest.raises(InputError, match="other images or other truths"):
        build("per-class", results, PLAIN)


@pytest.mark.parametrize("name", ["roc", "precision-recall", "confusion", "calibration", "threshold-sweep"])
def test_score_figures_refuse_what_tables_refuse(name: str, tmp_path: Path) -> None:
    run(tmp_path / "seeds", 0, {"n_boot": 1})
    run(tmp_path / "seeds", 0, {"n_boot": 2})
    with pytest.raises(InputError, match="two runs share seed 0"):
        draw(name, collect(tmp_path / "seeds")[0])
    for seed, rate in enumerate((0.1, 0.2)):
        run(tmp_path / "rates", seed, {"lr": rate})
    results = collect(tmp_path / "rates")[0]
    with pytest.raises(InputError, match=r"differ in lr \(0.1 in 1 run, 0.2 in 1\)"):
        draw(name, results)
    assert draw(name, results, Options(columns=("lr",))).figure.get_axes()


def test_results_without_a_configuration_are_cautioned(tmp_path: Path) -> None:
    for seed in range(2):
        run(tmp_path, seed, {})
    results = collect(tmp_path)[0]
    place = results.column_names.index("config")
    results = results.set_column(place, "config", pa.nulls(len(results), results.schema.field("config").type))
    notes = build("label-efficiency", results, PLAIN).notes
    assert any("the configuration of 2 runs is not recorded" in note for note in notes)


def test_a_configuration_holds_contents_and_neither_seed_nor_machine() -> None:
    config = {
        "seed": 3,
        "shards": "/data/nih",
        "init": None,
        "optim": {"lr": 1.0},
        "checkpoint": {"keep": 2},
        "labels": ["a", "b"],
    }
    text = configs.config_text(config, ignore=("checkpoint",), content={"shards": "f" * 64})
    assert configs.parsed(text) == {"shards": "f" * 64, "optim.lr": 1.0, "labels": ["a", "b"]}
    assert [config_keys.spell(value) for value in (None, True, 0.0010, ["a", "b"], "f" * 64)] == [
        "none",
        "true",
        "0.001",
        "a,b",
        "f" * 12,
    ]
    with pytest.raises(InputError, match="holds no configuration"):
        configs.parsed("{")


def test_the_filter_reads_values_as_the_messages_spell_them(tmp_path: Path) -> None:
    for seed, (flag, names) in enumerate(((True, ["edema", "mass"]), (False, ["edema"]))):
        run(tmp_path, seed, {"balanced": flag, "names": names})
    results = collect(tmp_path)[0]
    for text in ("balanced=true", "names=edema,mass"):
        table = build("label-efficiency", results, Options(test=False, where=(text,)))
        assert [row["seed"] for row in table.cells[0][0].rows] == [0]  # type: ignore[union-attr]
