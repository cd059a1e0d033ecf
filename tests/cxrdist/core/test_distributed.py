"""Any number of ranks computes the same loss, gradients, batches and views."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed import HashStore, TCPStore  # pyright: ignore[reportPrivateImportUsage]

from cxrdist.core import distributed
from cxrdist.core.distributed import Ranks
from cxrdist.errors import FailedError
from cxrdist.pretrain.sync_norm import synchronise
from tests.cxrdist import late_worker, rank_worker
from tests.cxrdist.forked import run_forked

Found = dict[int, list[dict[str, dict[str, Any]]]]


@pytest.fixture(scope="module")
def found(blobs: Path, tmp_path_factory: pytest.TempPathFactory) -> Found:
    """What every rank of 1, 2 and 4 found: [world][rank][case]; see rank_worker."""
    out = tmp_path_factory.mktemp("ranks")
    for world in (1, 2, 4):
        code, errors = run_forked(rank_worker.main, str(blobs), str(out), nproc=world, log=out / f"{world}.err")
        assert code == 0, errors[-3000:]
    return {world: [torch.load(out / f"{world}-{rank}.pt") for rank in range(world)] for world in (1, 2, 4)}


# Gradients are compared by the norm of the difference. Behind BatchNorm the stem's convolutions (the first parameters)
# sum large terms that cancel, and one process is itself 5e-6 of the norm away from its float64 gradient there: they may
# differ by that. All other parameters agree to 1e-6, and in float64 all of them do to twelve digits.
@pytest.mark.parametrize(
    ("case", "tolerance"),
    [
        ("plain", 1e-6), ("parts", 1e-6), ("norm", 1e-6), ("double", 1e-12),
        ("vicreg", 1e-12), ("vicreg in float32", 1e-6), ("vicreg in parts", 1e-6),
    ],
)  # fmt: skip
def test_one_two_and_four_ranks_give_the_same_loss_and_gradients(found: Found, case: str, tolerance: float):
    alone = found[1][0][case]
    assert alone["gradient"].norm() > 0.1
    stem = int(alone["stem"]) if case == "norm" else 0
    for world in (2, 4):
        for ours in (rank[case] for rank in found[world]):
            assert float(ours["loss"]) == pytest.approx(float(alone["loss"]), rel=min(1e-6, tolerance))
            difference = ours["gradient"] - alone["gradient"]
            assert difference[stem:].norm() < tolerance * alone["gradient"].norm()
            assert difference[:stem].norm() <= 1e-5 * alone["gradient"].norm()
            assert torch.equal(ours["gradient"], found[world][0][case]["gradient"])  # the ranks never drift apart
            for name in (k for k in alone if k.startswith("buffer")):
                assert torch.allclose(ours[name], alone[name], rtol=1e-6, atol=1e-7), name


@pytest.mark.parametrize(("one", "other"), [("plain", "parts"), ("vicreg in float32", "vicreg in parts")])
def test_a_batch_in_parts_gives_the_gradient_of_the_whole_batch(found: Found, one: str, other: str):
    whole, parts = found[1][0][one], found[1][0][other]
    assert float(parts["loss"]) == pytest.approx(float(whole["loss"]), rel=1e-6)
    assert (parts["gradient"] - whole["gradient"]).norm() < 1e-6 * whole["gradient"].norm()


def test_any_number_of_ranks_sees_the_same_batch_and_views_bit_for_bit(found: Found):
    alone = found[1][0]["plain"]
    for world in (2, 4):
        assert all(torch.equal(rank["plain"]["positions"], alone["positions"]) for rank in found[world])
        assert torch.equal(torch.cat([rank["plain"]["views"] for rank in found[world]], dim=1), alone["views"])


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_global_batchnorm_alone_is_torchs_batchnorm(device: str):
    torch.manual_seed(0)
    for norm, shape in ((torch.nn.BatchNorm2d(3), (4, 3, 5, 5)), (torch.nn.BatchNorm1d(3), (6, 3))):
        torch.nn.init.normal_(norm.weight)
        ours = synchronise(torch.nn.Sequential(norm), Ranks(device=torch.device(device))).to(device)
        theirs = torch.nn.Sequential(type(norm)(3)).to(device)
        theirs.load_state_dict(ours.state_dict())
        x = (torch.randn(shape) * 3 + 50).to(device).requires_grad_()
        for training in (True, True, False):
            ours.train(training)
            theirs.train(training)
            grads = [torch.autograd.grad((m(x) ** 3).sum(), [x, *m.parameters()]) for m in (ours, theirs)]
            for a, b in zip(*grads, strict=True):
                assert torch.allclose(a, b, rtol=1e-3, atol=1e-3)
            for name, value in theirs.state_dict().items():
                assert torch.allclose(ours.state_dict()[name].double(), value.double(), rtol=1e-5), name


# What a case may differ by, of the norm: float32 convolutions of another batch may take another algorithm on a card.
ON_A_CARD = {"plain": 1e-4, "parts": 1e-4, "norm": 1e-2, "double": 1e-9, "vicreg": 1e-9}


def on_one_card(shards: Path, out: Path, world: int, way: str | None) -> tuple[int, str]:
    """What `world` ranks of one card find is in OUT/WORLD-RANK.pt; returns exit code and standard error."""
    log = out / f"{way}-{world}.err"
    return run_forked(rank_worker.on_one_card, str(shards), str(out), way, nproc=world, log=log)


def check_as_alone(out: Path) -> None:
    """Two ranks of one card found what one finds on it."""
    alone = torch.load(out / "1-0.pt")
    for found in (torch.load(out / f"2-{rank}.pt") for rank in (0, 1)):
        for case, tolerance in ON_A_CARD.items():
            one, ours = alone[case], found[case]
            assert float(ours["loss"]) == pytest.approx(float(one["loss"]), rel=tolerance), case
            assert one["gradient"].norm() > 0.1
            assert (ours["gradient"] - one["gradient"]).norm() < tolerance * one["gradient"].norm(), case
            for name in (key for key in one if key.startswith("buffer")):
                assert torch.allclose(ours[name].double(), one[name].double(), rtol=tolerance, atol=tolerance), name
        # Parts are normalised by their own statistics; what the first layer saw is the same however it is divided.
        for name in ("running_mean", "running_var"):
            key, case = f"buffer backbone.conv1.1.{name}", "norm in parts"
            assert torch.allclose(found[case][key], alone[case][key], rtol=1e-9), name


@pytest.mark.gpu
def test_two_ranks_of_one_card_normalise_over_both_and_find_what_one_does(blobs: Path, tmp_path: Path):
    """torch's SyncBatchNorm and DDP on a card; gloo carries the tensors, because NCCL wants a card for each rank."""
    for world in (1, 2):
        code, errors = on_one_card(blobs, tmp_path, world, "gloo")
        assert code == 0, errors[-3000:]
    check_as_alone(tmp_path)


@pytest.mark.gpu
def test_nccl_refuses_two_ranks_of_one_card_or_agrees_with_one(blobs: Path, tmp_path: Path):
    code, errors = on_one_card(blobs, tmp_path, 1, None)
    assert code == 0, errors[-3000:]
    code, errors = on_one_card(blobs, tmp_path, 2, None)
    if code:
        assert "Duplicate GPU detected" in errors or "ncclInvalidUsage" in errors, errors[-3000:]
    else:
        check_as_alone(tmp_path)


@pytest.mark.gpu
def test_nccl_carries_the_tensors_of_one_rank_on_a_card_and_gloo_its_flags(tmp_path: Path):
    code, errors = run_forked(rank_worker.alone_with_nccl, str(tmp_path), nproc=1, log=tmp_path / "errors")
    assert code == 0, errors[-3000:]
    found = torch.load(tmp_path / "alone.pt")
    assert torch.equal(found["gathered"], found["sent"]) and found["flag"].tolist() == [3]
    assert torch.allclose(*found["gradients"], rtol=1e-6) and found["gradients"][0].norm() > 0.1


def test_no_rank_joins_the_group_before_all_have_their_data(make_run):
    """Joining has a timeout; one node may copy its shards for longer than that."""
    run = make_run(steps=1, global_batch=8)
    code, errors = run_forked(late_worker.main, str(run.path), nproc=2, log=run.path.with_name("log"))
    assert code == 0 and run.is_done, errors[-3000:]
    assert float((run.path / "joined").read_text()) > float((run.path / "opened").read_text())


def test_a_rank_that_waits_for_the_others_leaves_when_asked_to(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    asked = iter([False, False, True])
    assert not distributed.wait_for_all(HashStore(), lambda: next(asked))
    assert distributed.wait_for_all(None, lambda: True)


def test_a_rank_whose_first_rank_is_gone_says_so(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(distributed, "_LATE_S", 0.2)
    server = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    client = TCPStore("127.0.0.1", server.port, is_master=False, wait_for_workers=False)
    del server
    with pytest.raises(FailedError, match="the first rank ended before all were ready"):
        distributed.wait_for_all(client, lambda: False)
