"""The paragraph for a paper: every fact of it from the runs' files, and nothing where they say nothing."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import pytest

from jobs import cli
from results.collect import collect
from results.ensemble import make
from results.report import references
from results.report.methods import methods
from results.report.sections import runs_of
from results.run import Run
from tests.results import simulate

SETTINGS = {
    "image_size": 96,
    "epochs": 7,
    "global_batch": 48,
    "patience": 4,
    "optim": {"name": "adamw", "lr": 0.002, "schedule": "cosine"},
    "augment": {"preset": "medical"},
}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One pretraining, and two seeds at two fractions from two initialisations, with the shard set's card."""
    top = tmp_path_factory.mktemp("paper")
    encoder = Run.create(
        top / "simclr",
        job="pretrain",
        config={"arch": "resnet18", "method": "simclr", "epochs": 33, "global_batch": 512, "image_size": 96}
        | {"optim": {"name": "lars"}, "temperature": 0.25, "seed": 0},
        signature="a" * 12,
    )
    encoder.finish(dataset="nih", wall_seconds=1.0, gpu_seconds=1.0)
    card = simulate.card(top / "shards") / "dataset.json"
    shards = {str(card.parent): hashlib.sha256(card.read_bytes()).hexdigest()}
    for init in ("scratch", "imagenet"):
        for fraction in (0.1, 1.0):
            for seed in (0, 1):
                simulate.finetune(
                    top / "cells",
                    init=init,
                    label_fraction=fraction,
                    seed=seed,
                    shards=shards,
                    config=SETTINGS,
                    threshold_rule="f1",
                    history=False,
                    intervals=False,
                )
    return top


def written(folder: Path, style: str = "markdown"):
    results, _ = collect(folder)
    return methods(results, runs_of(results), style)


def test_sizes_split_and_exclusions_are_those_of_the_card(study: Path) -> None:
    text = written(study).text
    assert (
        "We used phantom [@someone2020]: 1,000 images of 500 patients for training, 120 images of 60 patients for"
        " validation and 200 images of 100 patients for testing (split official), after 3 files had been excluded."
    ) in text
    assert "Patients in two splits: 2 (train/test)." in text


def test_settings_are_those_of_the_configurations(study: Path) -> None:
    text = written(study).text
    assert "pretrained without labels by SimCLR [@chen2020simclr] on nih, for 33 epochs" in text
    assert "33 epochs, with 512 images per step" in text
    assert "with LARS [@you2017lars], temperature 0.25" in text
    assert "from random weights and ImageNet weights [@russakovsky2015imagenet], updating all layers." in text
    assert "Of the labels 10 % and 100 % were used" in text
    assert "at 96 pixels, for at most 7 epochs, with 48 images per step, with AdamW [@loshchilov2019adamw]" in text
    assert (
        "(learning rate 0.002, cosine schedule)" in text
        and "after 4 validations" in text
        and "Each configuration was trained with 2 seeds." in text
    )
    assert "Thresholds were chosen on validation images (f1)" in text


def test_a_probe_on_frozen_features_is_said_to_have_no_optimiser(tmp_path: Path) -> None:
    simulate.finetune(tmp_path, mode="linear", config=SETTINGS, history=False, intervals=False)
    text = written(tmp_path).text
    assert "updating the head alone on frozen features" in text and "at 96 pixels" in text
    assert "AdamW" not in text and "epochs" not in text and "validations" not in text


def test_steps_that_a_small_fraction_takes_at_least_are_said(tmp_path: Path) -> None:
    simulate.finetune(tmp_path, config={**SETTINGS, "min_steps": 60}, history=False, intervals=False)
    assert "for at most 7 epochs (or 60 steps where that is more)" in written(tmp_path).text


def test_a_threshold_that_was_fixed_is_not_said_to_be_chosen_on_validation(tmp_path: Path) -> None:
    simulate.finetune(tmp_path, threshold_rule="0.5", history=False, intervals=False)
    text = written(tmp_path).text
    assert "Thresholds were fixed at 0.5." in text and "chosen on validation" not in text
    assert "Models were compared" not in text, "there is one"


def test_patience_of_some_runs_is_not_said_of_all(study: Path, tmp_path: Path) -> None:
    assert "It ended after 4 validations" in written(study).text
    for mode, config in (("full", SETTINGS), ("last_n", {**SETTINGS, "patience": None})):
        simulate.finetune(tmp_path, mode=mode, config=config, history=False, intervals=False)
    assert "Some of it ended after 4 validations" in written(tmp_path).text


def test_lengths_of_pretraining_in_steps_and_in_epochs_are_both_said(tmp_path: Path) -> None:
    for name, length in (("aaa", {"epochs": 30}), ("bbb", {"epochs": 100, "steps": 500})):
        run = Run.create(tmp_path / name, job="pretrain", config={"arch": "resnet18", **length}, signature=name)
        run.finish(dataset="nih", wall_seconds=1.0, gpu_seconds=1.0)
    text = written(tmp_path).text
    assert "for 30 epochs and 500 steps" in text and "100 epochs" not in text


def test_ensembles_are_said_to_be_averages_and_not_to_have_been_trained(tmp_path: Path) -> None:
    for mode in ("linear", "full"):
        simulate.finetune(tmp_path / "runs", mode=mode, config=SETTINGS, history=False, intervals=False)
    make([str(tmp_path / "runs")], tmp_path / "ensembles")
    text = written(tmp_path).text
    assert "updating the head alone on frozen features and all layers." in text
    assert "Ensembles (scratch) predict the mean of the probabilities of their members, image by image." in text


def test_bibtex_holds_exactly_what_the_text_cites(study: Path) -> None:
    found = written(study)
    cited = set(re.findall(r"\[@([^\]]+)\]", found.text))
    assert cited == set(re.findall(r"^@\w+\{([^,]+),", found.bibtex, re.MULTILINE))
    assert {"someone2020", "chen2020simclr", "he2016resnet", "delong1988", "holm1979"} <= cited
    assert "bardes2022vicreg" not in cited


def test_what_is_not_recorded_is_left_out_and_not_filled_in(tmp_path: Path) -> None:
    simulate.finetune(tmp_path, history=False, intervals=False, arch="resnet18")
    text = written(tmp_path).text
    for word in ("epochs", "images per step", "AdamW", "pretrained", "Thresholds were", "We used", "excluded"):
        assert word not in text
    assert "trained with 1 seed." in text and "spread over seeds" not in text


def test_sizes_of_a_set_that_is_gone_are_said_to_be_not_recorded(tmp_path: Path) -> None:
    content = "ab" * 32
    facts = {content: {"name": "nih", "citation": "@inproceedings{wang2017,\n title = {ChestX-ray8}\n}"}}
    simulate.finetune(tmp_path, history=False, intervals=False, shards={"/gone": content}, datasets=facts)
    assert "We used nih [@wang2017], whose sizes are not recorded" in written(tmp_path).text


def test_every_reference_is_a_bibtex_entry_with_braces_in_pairs() -> None:
    keys = [references.key_of(entry) for entry in references.ENTRIES.values()]
    assert None not in keys and len(set(keys)) == len(keys)
    for entry in references.ENTRIES.values():
        assert entry.count("{") == entry.count("}") and "author = {" in entry and "year = {" in entry


@pytest.mark.parametrize(
    ("arch", "name"),
    [
        ("resnet18", "resnet"),
        ("resnet50", "resnet"),
        ("resnetv2_50", None),
        ("densenet121", "densenet"),
        ("convnext_tiny", "convnext"),
        ("convnextv2_tiny", None),
        ("vit_small_patch16_224", "vit"),
        ("test_resnet", None),
        ("small_cnn", None),
    ],
)
def test_an_architecture_is_cited_by_the_paper_of_its_own_family(arch: str, name: str | None) -> None:
    assert references.family(arch) == name


def test_text_and_bibtex_are_not_written_over_each_other(study: Path, tmp_path: Path, capsys) -> None:
    both = str(tmp_path / "methods.md")
    assert cli.main(["methods", str(study), "--out", both, "--bib", both]) == 2
    assert "name the same file" in capsys.readouterr().err and not Path(both).exists()


def test_the_command_writes_text_and_bibtex(study: Path, tmp_path: Path, capsys) -> None:
    out, bib = tmp_path / "methods.tex", tmp_path / "methods.bib"
    assert cli.main(["methods", str(study), "--cite", "latex", "--out", str(out), "--bib", str(bib)]) == 0
    assert "\\cite{chen2020simclr}" in out.read_text() and "@inproceedings{chen2020simclr," in bib.read_text()
    assert cli.main(["methods", str(tmp_path / "nothing")]) == 2
    assert capsys.readouterr().err.count("\n") == 1
