"""The labelled samples of a trial: policies, fractions, labels that cannot be learned."""

from __future__ import annotations

from pathlib import Path

import pyarrow.compute as pc
import pytest

from cxrdist.core import shard_sets
from cxrdist.errors import InputError
from cxrdist.finetune import labelled_data
from cxrdist.finetune import trial as finetuning
from results import schema
from tests.cxrdist import findings
from tests.cxrdist.finetuning import trained, trial


@pytest.fixture(scope="session")
def unsure(tmp_path_factory) -> Path:
    """Two labels, a fifth of them uncertain or blank."""
    return findings.make(tmp_path_factory.mktemp("unsure"), unsure=0.1, blank=0.1)


def test_uncertain_and_blank_labels_follow_the_policy(tmp_path, unsure):
    counts = {}
    for name, policy in {
        "ones": {"uncertain": "ones", "blanks": "zeros"},
        "ignore": {"uncertain": "ignore", "blanks": "ignore"},
        "mixed": {"uncertain": {"pneumonia": "zeros", "edema": "ignore"}, "blanks": "zeros"},
    }.items():
        run = trained(tmp_path / name, unsure, mode="linear", **policy)
        table = schema.read_predictions(run.predictions).filter(pc.field("split") == "test")
        counts[name] = {
            label: table.filter(pc.field("label") == label)["y_true"].null_count for label in ("pneumonia", "edema")
        }
        policies = set(schema.read_metrics(run.metrics)["label_policy"].to_pylist())
        assert policies == {
            {"ones": "ones/zeros", "ignore": "ignore/ignore"}.get(name, "edema:ignore,pneumonia:zeros/zeros")
        }
    stored = shard_sets.card(str(unsure)).counts["test"]["labels"]
    assert counts["ones"] == {"pneumonia": 0, "edema": 0}
    assert counts["ignore"] == {label: stored[label]["uncertain"] + stored[label]["null"] for label in stored}
    assert counts["mixed"] == {"pneumonia": 0, "edema": stored["edema"]["uncertain"]}


def test_fractions_are_nested_and_val_is_cut_only_when_asked(tmp_path, blobs):
    keys = {}
    for fraction in (0.1, 0.5):
        config, _ = trial(tmp_path / str(fraction), blobs, label_fraction=fraction)
        data = labelled_data.load(config)
        keys[fraction] = set(data.manifest.keys)
        assert data.val is not None and len(data.val) == 40
    assert keys[0.1] < keys[0.5] and len(keys[0.1]) == 15
    few, _ = trial(tmp_path / "few", blobs, label_fraction=0.1, val_fraction_too=True)
    val = labelled_data.load(few).val
    assert val is not None and len(val) == 4


def test_a_label_without_positives_is_null_and_counted(tmp_path):
    shards = findings.make(tmp_path, positive={"edema": 0.02}, seed=5)
    train = shard_sets.card(str(shards)).counts["train"]["labels"]["edema"]["positive"]
    seed = next(
        seed
        for seed in range(50)
        if not labelled_data.load(trial(tmp_path / f"look{seed}", shards, label_fraction=0.2, seed=seed)[0]).trainable[
            0
        ]
    )
    assert train > 0
    run = trained(tmp_path / "run", shards, label_fraction=0.2, seed=seed, mode="linear")
    assert run.read_done()["unlearnt"] == ["edema"]
    rows = schema.read_metrics(run.metrics).to_pylist()
    edema = [row for row in rows if row["label"] == "edema"]
    assert edema and all(row["value"] is None for row in edema)
    macro = next(row for row in rows if row["label"] == "macro" and row["metric"] == "auroc")
    assert (macro["n_labels"], macro["n_labels_undefined"]) == (1, 1) and macro["value"] is not None
    assert set(schema.read_predictions(run.predictions)["label"].to_pylist()) == {"pneumonia"}


def test_a_fraction_that_teaches_nothing_is_refused(tmp_path):
    shards = findings.make(tmp_path, positive={"edema": 0.0, "pneumonia": 0.0})
    config, run = trial(tmp_path / "run", shards)
    with pytest.raises(InputError, match="no label with positives and negatives"):
        finetuning.run_trial(config, run)
    assert not run.is_done
