"""A run can be interrupted anywhere and ends as if it had not been."""

import json
import os
import time
from typing import Any

import pytest
import torch
import torch.utils._pytree

from cxrdist.core import checkpoint
from cxrdist.core.checkpoint import CheckpointWarning
from cxrdist.core.device import cpu_has_bf16
from cxrdist.core.distributed import Ranks
from cxrdist.errors import FailedError, InputError
from cxrdist.pretrain import loop
from tests.cxrdist.conftest import ROOT, run_ranks, same, train, weights
from tests.cxrdist.resume_worker import StopAfter


def go(run: Any, steps: int = 10**9) -> None:
    """Train in this process, until the end or a stop after `steps`."""
    torch.set_num_threads(1)
    config = loop.from_dict(loop.PretrainConfig, run.read_config())
    loop.train(config, run, Ranks(), StopAfter(steps))


@pytest.fixture(scope="module", autouse=True)
def _determinism():
    yield
    torch.use_deterministic_algorithms(False)


def test_a_run_stopped_at_any_step_and_resumed_ends_bit_identical(make_run):
    whole = make_run("whole")
    go(whole)
    assert whole.is_done and whole.read_done()["steps"] == 10
    for at in (1, 4, 7, 9):
        run = make_run(f"stopped{at}")
        go(run, at)
        assert not run.is_done and checkpoint.steps(run.checkpoints)[-1] == at
        go(run)
        assert same(run, whole), f"stopped at step {at}"


def test_a_run_with_dropout_bf16_and_validation_resumes_bit_identical_too(make_run, capsys):
    changes: dict[str, Any] = {
        "precision": "bf16", "image_size": 16,  # bf16 is slow where it is emulated
        "head": {"kind": "dropout"}, "watch": {"every_epochs": 0.4, "samples": 30},
        "export": "best", "optim": {"name": "adamw", "lr": 0.01, "micro_batch": 20, "clip_norm": 1.0},
    }  # fmt: skip
    whole, run = make_run("whole", **changes), make_run("run", **changes)
    go(whole)
    assert capsys.readouterr().err.count("it is emulated") == (not cpu_has_bf16())
    for at in (3, 1, 4):
        go(run, at)
    go(run)
    assert same(run, whole)
    assert run.read_done()["best_val_loss"] == whole.read_done()["best_val_loss"]
    evaluations = [row for row in whole.read_log() if "val_loss" in row]
    assert [row["step"] for row in evaluations] == [4, 8, 10]
    assert evaluations == [row for row in run.read_log() if "val_loss" in row]


def test_asking_for_a_finished_run_again_changes_nothing(make_run):
    run = make_run(steps=2)
    go(run)
    before = run.encoder.stat().st_mtime_ns, run.done.read_text()
    loop.main(make_run(steps=2).path)
    assert (run.encoder.stat().st_mtime_ns, run.done.read_text()) == before


def test_torn_and_foreign_checkpoints_are_passed_over_and_the_run_ends_the_same(make_run):
    whole, run = make_run("whole"), make_run("run")
    go(whole)
    go(run, 9)
    steps = checkpoint.steps(run.checkpoints)
    assert steps == [8, 9]
    os.truncate(checkpoint.folder(run.checkpoints, 9) / "state.pt", 1000)
    with pytest.warns(CheckpointWarning, match="cut off"):
        go(run)
    assert same(run, whole)


def test_training_goes_on_while_a_checkpoint_is_written_which_holds_the_state_of_its_step(make_run, monkeypatch):
    stopped, run = make_run("stopped"), make_run("run", checkpoint={"every_steps": 4, "keep": 5})
    go(stopped, 4)
    save, seen = torch.save, []

    def slow(state, file):
        until = time.monotonic() + 20
        while state["progress"]["step"] == 4 and time.monotonic() < until:
            seen[:] = [row["step"] for row in run.read_log()]
            if max(seen) > 6:
                break
            time.sleep(0.01)
        save(state, file)

    monkeypatch.setattr(torch, "save", slow)
    go(run)
    assert max(seen) > 6, "the training waited for the disk"
    states = [
        checkpoint.load(checkpoint.folder(one.checkpoints, 4), str(one.read_info()["signature"]))[0]
        for one in (stopped, run)
    ]
    for part in ("model", "optimizer"):
        held, wanted = (torch.utils._pytree.tree_leaves(state[part]) for state in states)
        assert len(held) == len(wanted)
        for a, b in zip(held, wanted, strict=True):
            assert torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b
    assert states[0]["progress"]["order_sha256"] == states[1]["progress"]["order_sha256"]


def test_a_full_disk_at_a_save_does_not_stop_the_run_nor_lose_the_earlier_checkpoint(make_run, monkeypatch, capsys):
    run = make_run()
    save = torch.save

    def full(state, file):
        if state["progress"]["step"] == 8:
            raise OSError(28, "No space left on device")
        save(state, file)

    monkeypatch.setattr(torch, "save", full)
    go(run)
    assert run.is_done
    assert "No space left" in capsys.readouterr().err
    assert checkpoint.steps(run.checkpoints) == [4, 10]


def test_a_stop_that_cannot_be_saved_is_a_failure_and_keeps_the_earlier_checkpoint(make_run, monkeypatch):
    run = make_run()

    def full(state, file):
        raise OSError(28, "No space left on device")

    go(run, 4)
    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(FailedError, match="could not be written"):
        go(run, 2)
    assert checkpoint.steps(run.checkpoints) == [4]


def test_a_loss_that_is_no_number_stops_the_run_naming_the_step_and_keeps_the_last_checkpoint(make_run):
    run = make_run(optim={"lr": 1e12, "name": "sgd", "warmup_epochs": 0})
    with pytest.raises(FailedError, match=r"loss is (nan|inf) at step \d+.*checkpoint"):
        go(run)
    for step in checkpoint.steps(run.checkpoints):
        state, _ = checkpoint.load(checkpoint.folder(run.checkpoints, step), run.read_info()["signature"])
        assert all(torch.isfinite(v).all() for v in state["model"].values() if v.is_floating_point())
    assert not run.is_done and not run.encoder.exists()


def test_training_stops_early_when_the_validation_loss_no_longer_falls(make_run):
    watch = {"every_epochs": 0.2, "samples": 30, "patience": 2}
    run = make_run(steps=60, watch=watch, optim={"lr": 1e-9, "name": "sgd"})
    go(run)
    done = run.read_done()
    assert done["stopped_early"] and done["steps"] < 60


def test_the_log_holds_loss_speed_and_what_the_watches_saw(make_run):
    run = make_run(steps=10, watch={"every_epochs": 1, "samples": 40}, tensorboard=True)
    go(run)
    log = run.read_log()
    steps = [row for row in log if "loss" in row]
    assert [row["step"] for row in steps] == list(range(1, 11))
    assert all(row["images_per_s"] > 0 and 0 <= row["data_wait"] <= 1 and row["memory_mib"] > 0 for row in steps)
    seen = next(row for row in log if "val_loss" in row)
    assert 1 <= seen["effective_rank"] <= 16 and 0 <= seen["knn_auroc"] <= 1 and seen["alignment"] >= 0
    assert list(run.tb.iterdir())


def test_two_ranks_end_where_one_does_and_each_other_time(make_run):
    """Without BatchNorm, over whole runs: the same batches, and weights equal to rounding."""
    changes: dict[str, Any] = {"arch": "test_convnext", "head": {"norm": False}, "optim": {"name": "sgd", "lr": 0.01}}
    changes |= {"global_batch": 8, "steps": 6}
    one, two, broken = make_run("one", **changes), make_run("two", **changes), make_run("broken", **changes)
    go(one)
    train(two, nproc=2)
    go(broken, 3)  # begun by one rank, ended by two
    train(broken, nproc=2)
    a = weights(one)
    for other in (weights(two), weights(broken)):
        assert all(torch.allclose(a[k], other[k], atol=1e-5) for k in a)
    assert len({r.read_done()["order_sha256"] for r in (one, two, broken)}) == 1


@pytest.mark.slow
def test_a_compiled_run_learns_as_an_eager_one_does(make_run):
    eager, compiled = make_run("eager", steps=3), make_run("compiled", steps=3, compile=True)
    for run in (eager, compiled):
        code, errors = run_ranks(run, timeout=900)
        assert code == 0, errors[-3000:]
    losses = [[row["loss"] for row in run.read_log() if "loss" in row] for run in (eager, compiled)]
    assert len(losses[0]) == 3 and losses[1] == pytest.approx(losses[0], rel=1e-3)


def test_unusable_settings_are_refused_before_anything_is_made(make_run, tmp_path, blobs):
    for changes, match in (
        ({"nproc": 3}, "does not divide evenly among 3 ranks"),
        ({"shards": str(tmp_path)}, "no dataset.json|not a shard set|is no shard set"),
        ({"augment": {"off": ["colour"]}}, "colour"),
        ({"augment": {"crop": [0.9, 0.2]}}, "augment.crop"),
        ({"optim": {"micro_batch": 1}}, "micro_batch"),
        ({"global_batch": 152}, "has 150 images to learn from.*--global_batch 150 or less"),
        ({"init": str(tmp_path / "absent.safetensors")}, "does not exist"),
        ({"watch": {"every_epochs": 0, "patience": 3}}, "patience"),
        ({"vicreg": {"variance": 3.0}}, "vicreg is a setting of --method vicreg, this run's is simclr"),
        ({"method": "vicreg", "temperature": 0.1}, "temperature is a setting of --method simclr"),
        ({"method": "vicreg", "head": {"dim": 128, "hidden": None}, "vicreg": {"expander": []}}, "expander is empty"),
        ({"method": "byol"}, "method = .*byol.*must be simclr or vicreg"),
    ):
        with pytest.raises(ValueError, match=match) as caught:
            make_run("refused", **changes)
        assert caught.value.exit_code == 2  # pyright: ignore[reportAttributeAccessIssue]
        assert not (tmp_path / "refused").exists()


def test_a_batch_larger_than_the_pool_is_refused_by_the_worker_too(make_run):
    """Rules and holdouts leave fewer images than the card counts."""
    run = make_run(pool={"holdout": 0.5}, global_batch=80)
    with pytest.raises(InputError, match="75 images to learn from"):
        loop.main(run.path)


def test_the_batch_that_closes_an_epoch_passes_over_its_repeats(make_run, monkeypatch):
    """Of 150 images in batches of 100, the second holds 50 of the next epoch, some of them twice."""
    from cxrdist.pretrain import simclr
    from cxrdist.pretrain.losses import nt_xent

    named = []

    def spy(*args: Any, images: Any = None, **more: Any) -> Any:
        named.append(images)
        return nt_xent.nt_xent(*args, images=images, **more)

    monkeypatch.setattr(simclr, "nt_xent", spy)
    go(make_run(global_batch=100, steps=3, arch="resnet10t", image_size=16))
    assert named[0] is None
    assert named[1] is not None and len(named[1]) == 100 > len(named[1].unique())
    assert named[2] is None


def test_a_worker_says_in_one_line_what_is_wrong(make_run, capsys):
    assert loop.run_worker([]) == 2
    run = make_run(arch="resnet19")
    assert loop.run_worker([str(run.path)]) == 2
    err = capsys.readouterr().err
    assert "resnet19" in err and "Traceback" not in err


def test_an_encoder_tells_where_it_comes_from(make_run):
    from cxrdist.core.backbones import load_encoder

    run = make_run(steps=1, global_batch=8, arch="resnet10t")
    go(run)
    backbone, facts = load_encoder(run.path)
    assert facts["signature"] == run.read_info()["signature"] and facts["arch"] == "resnet10t"
    assert 0 < float(facts["mean"]) < 1 and facts["stem"] == "small"
    assert backbone(torch.zeros(1, 1, 32, 32)).shape == (1, int(facts["num_features"]))
    again = make_run("again", steps=1, global_batch=8, arch="resnet10t", init=str(run.path))
    go(again)
    assert again.read_info()["signature"] != run.read_info()["signature"]
    json.loads(again.done.read_text())


def test_pool_rules_keep_the_shares_they_name(blobs):
    from cxrdist.pretrain.config import PoolConfig
    from cxrdist.pretrain.samples import keep_rows, open_pool
    from shards import ShardSet

    train = ShardSet(blobs, "train")
    sick = train.labels_matrix(["pneumonia"])[:, 0] == 1
    rows = keep_rows(train, PoolConfig(keep={"!pneumonia": 1.0, "pneumonia": 0.2}), seed=0)
    kept = (rows[:, None] == train.rows[None]).any(0)
    assert kept[~sick].all() and kept[sick].sum() == round(0.2 * sick.sum())
    more = keep_rows(train, PoolConfig(keep={"!pneumonia": 1.0, "pneumonia": 0.5}), seed=0)
    assert set(rows) < set(more)
    pool = open_pool(str(blobs), PoolConfig(holdout=0.2), seed=1)
    assert isinstance(pool.val, ShardSet) and isinstance(pool.train, ShardSet)
    assert len(pool.val) == 30 and not set(pool.val.rows) & set(pool.train.rows)
    assert len(open_pool(str(blobs), PoolConfig(), seed=1).train) == 150
    with pytest.raises(InputError, match="has the labels pneumonia"):
        keep_rows(train, PoolConfig(keep={"hernia": 1.0}), seed=0)


def test_a_collapse_is_seen_by_its_effective_rank():
    from cxrdist.pretrain.online_eval import alignment, effective_rank, knn_auroc, uniformity

    torch.manual_seed(0)
    spread, line = torch.randn(2000, 16), torch.randn(100, 1) * torch.ones(1, 16) + 1e-6 * torch.randn(100, 16)
    assert 15 < effective_rank(spread) <= 16 and effective_rank(line) < 1.5 and effective_rank(torch.ones(9, 4)) == 0
    assert alignment(spread, 3 * spread) == pytest.approx(0, abs=1e-6)
    assert alignment(torch.eye(2), -torch.eye(2)) == pytest.approx(4)
    assert uniformity(torch.ones(5, 3)) == pytest.approx(0, abs=1e-5)
    assert uniformity(torch.eye(2)) == pytest.approx(-4)  # the only distance is the square root of 2
    truth = torch.arange(40).numpy().astype("int8")[:, None] % 2
    features = torch.nn.functional.normalize(torch.tensor([[1.0, 0.1], [0.1, 1.0]]).repeat(20, 1))
    assert knn_auroc(features, truth, features, truth, 5) == 1.0
    assert knn_auroc(features, truth, features, truth * 0 + 1, 5) is None


@pytest.mark.parametrize("spec", sorted(p.name for p in (ROOT / "jobs" / "specs").glob("pretrain*.toml")))
def test_every_pretraining_spec_is_usable(spec):
    from cxrdist.pretrain.config import validate
    from jobs.cli import parse

    words = ["--config", str(ROOT / "jobs" / "specs" / spec), "--shards", "S", "--out", "O"]
    validate(parse("pretrain", words))
