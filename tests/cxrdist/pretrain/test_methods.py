"""The methods of pretraining: what tells their runs apart, and a whole run of the one that is not the default."""

import dataclasses
from typing import Any, get_args

import pytest

from cxrdist.core import checkpoint
from cxrdist.core.configs import hints
from cxrdist.core.initialisation import describe
from cxrdist.pretrain.config import HeadConfig, PretrainConfig, from_dict
from cxrdist.pretrain.methods import METHODS
from cxrdist.pretrain.run_folder import identify
from results.collect import collect
from tests.cxrdist.conftest import same
from tests.cxrdist.pretrain.test_pretrain import _determinism as _determinism  # for the runs of this file, too
from tests.cxrdist.pretrain.test_pretrain import go

VICREG: dict[str, Any] = {
    "method": "vicreg",
    "head": dataclasses.asdict(HeadConfig()),
    "vicreg": {"expander": [32, 16]},
}


def signature(**values: Any) -> str:
    config = from_dict(PretrainConfig, {"shards": "S", "out": "O", **values})
    return identify(config, "5" * 64, describe("scratch"))


def test_the_choices_of_the_command_line_are_the_registry_and_every_setting_of_a_method_exists():
    assert get_args(hints(PretrainConfig)["method"]) == tuple(METHODS)
    assert {name for entry in METHODS.values() for name in entry.settings} <= set(hints(PretrainConfig))


def test_simclr_runs_from_before_there_was_a_choice_are_found_again():
    assert signature() == "1877fa96a6ac"
    assert (
        signature(temperature=0.5, head={"kind": "dropout"}, optim={"micro_batch": 8}, sync_bn=True) == "03eaf63b89e8"
    )
    assert signature(method="simclr", comm_hook="none") == signature()


def test_what_a_method_does_not_read_is_no_part_of_its_runs_and_what_it_reads_is():
    base = signature(method="vicreg")
    assert base != signature() and base == signature(method="vicreg", temperature=0.5, head={"dim": 7})
    changes = [{"invariance": 1.0}, {"variance": 12.5}, {"covariance": 2.0}, {"expander": [8192, 8192, 8192]}]
    found = {signature(method="vicreg", vicreg=change) for change in changes}
    assert len(found | {base}) == 5
    assert len({signature(), signature(comm_hook="bf16"), signature(method="vicreg", comm_hook="bf16")}) == 3


def test_a_run_of_vicreg_learns_watches_stops_resumes_and_says_its_name(make_run):
    changes: dict[str, Any] = VICREG | {
        "steps": 12, "watch": {"every_epochs": 0.4, "samples": 30}, "optim": {"name": "adamw", "lr": 0.05},
        "export": "best",
    }  # fmt: skip
    whole, run = make_run("whole", **changes), make_run("run", **changes)
    go(whole)
    go(run, 5)
    assert checkpoint.steps(run.checkpoints)[-1] == 5
    go(run)
    assert same(run, whole)
    seen = [row for row in whole.read_log() if "val_loss" in row]
    assert len(seen) == 3 and seen[-1]["val_loss"] < seen[0]["val_loss"] - 1
    assert all(0 <= row["knn_auroc"] <= 1 and row["effective_rank"] >= 1 for row in seen)
    assert whole.read_done()["best_val_loss"] == min(row["val_loss"] for row in seen)
    start = describe(str(whole.path))
    assert (start.name, start.method) == ("vicreg:pneumoniamnist", "vicreg")
    (row,) = collect(whole.path)[0].to_pylist()
    assert (row["method"], row["init"]) == ("vicreg", "scratch")


def test_vicreg_stops_early_by_its_own_loss(make_run):
    changes: dict[str, Any] = VICREG | {"arch": "test_convnext", "vicreg": {"expander": [16]}}  # without BatchNorm
    watch = {"every_epochs": 0.2, "samples": 30, "patience": 2}
    run = make_run(**changes, steps=60, watch=watch, optim={"lr": 1e-9, "name": "sgd"})
    go(run)
    done = run.read_done()
    assert done["stopped_early"] and done["steps"] < 60 and done["method"] == "vicreg"


def test_a_trial_on_an_encoder_of_vicreg_says_so_in_its_results(make_run, blobs, tmp_path):
    from results import schema
    from tests.cxrdist.finetuning import trained

    run = make_run(**VICREG, steps=2)
    go(run)
    trial = trained(tmp_path / "trial", blobs, init=str(run.path), mode="linear", arch=None, image_size=None)
    row = schema.read_metrics(trial.metrics).to_pylist()[0]
    assert (row["init"], row["method"]) == ("vicreg:pneumoniamnist", "vicreg")
    assert row["init_signature"] == run.read_info()["signature"]


@pytest.mark.parametrize("spelled", ["simclr", "vicreg"])
def test_an_encoder_file_has_its_method_in_its_metadata(make_run, spelled):
    from cxrdist.core.backbones import load_encoder

    run = make_run(**(VICREG if spelled == "vicreg" else {}), steps=1)
    go(run)
    assert load_encoder(run.path)[1]["method"] == spelled
