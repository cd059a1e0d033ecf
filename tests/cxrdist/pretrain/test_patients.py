"""Pairs of two images of one patient, and negatives of other patients alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from cxrdist.core import checkpoint
from cxrdist.core.distributed import join
from cxrdist.errors import InputError
from cxrdist.pretrain.config import PretrainConfig, from_dict, validate
from cxrdist.pretrain.losses.nt_xent import nt_xent
from cxrdist.pretrain.patients import Partners, names, patients_of
from shards import Order, ShardSet
from shards.read.loader import Loader
from tests.cxrdist import findings
from tests.cxrdist.conftest import same
from tests.cxrdist.forked import run_forked
from tests.cxrdist.pretrain.test_data_parallel import go

PATIENTS = np.array([4, 0, 4, 1, 4, 0, 2, 4])


@pytest.fixture(scope="session")
def pairs(tmp_path_factory) -> Path:
    """A set whose patients have two images each."""
    return findings.make(tmp_path_factory.mktemp("pairs"), name="pairs", seed=6)


def test_a_partner_is_another_image_of_the_patient_drawn_evenly():
    partners, positions = Partners(PATIENTS, seed=1), np.arange(len(PATIENTS))
    drawn = np.array([partners(step, positions) for step in range(600)])
    assert (PATIENTS[drawn] == PATIENTS).all()
    single = np.isin(PATIENTS, [1, 2])
    assert (drawn[:, single] == positions[single]).all(), "who has no other image is paired with it"
    assert (drawn[:, ~single] != positions[~single]).all()
    counts = np.bincount(drawn[:, 0], minlength=8)[[2, 4, 7]]
    assert counts.sum() == 600 and counts.min() > 160
    later = np.array([7, 3, 0, 0])
    assert np.array_equal(Partners(PATIENTS, seed=1)(41, later), partners(41, later)), "a function of the step alone"
    with pytest.raises(InputError, match="no patient of the pool has two images"):
        Partners(np.arange(5), seed=0)


def plain_loop(first: torch.Tensor, second: torch.Tensor, named: list[int], t: float) -> torch.Tensor:
    """The loss by its formula, view by view: what bears a view's own name is left out, but for its partner."""
    z, g = F.normalize(torch.cat([first, second]), dim=1), len(first)
    named = named if len(named) == 2 * g else named * 2
    total = torch.zeros((), dtype=z.dtype)
    for i in range(2 * g):
        partner = (i + g) % (2 * g)
        told = [k for k in range(2 * g) if k == partner or (k != i and named[k] != named[i])]
        scores = torch.stack([z[i] @ z[k] / t for k in told])
        total = total - (z[i] @ z[partner] / t - torch.logsumexp(scores, 0))
    return total / (2 * g)


@pytest.mark.parametrize("named", [[3, 1, 3, 2, 1, 5], [0, 1, 2, 3, 4, 5, 1, 0, 7, 3, 8, 9]])
def test_the_loss_with_names_is_that_of_a_plain_loop(named):
    torch.manual_seed(0)
    z = [torch.randn(6, 5, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    ours = nt_xent(z[0], z[1], 0.3, images=torch.tensor(named))
    theirs = plain_loop(z[0], z[1], named, 0.3)
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-12)
    for a, b in zip(torch.autograd.grad(ours, z), torch.autograd.grad(theirs, z), strict=True):
        assert torch.allclose(a, b, atol=1e-12)


def ranked(out: str) -> None:
    """One rank's loss and gradient of eight images, two or more of a patient."""
    with join(torch.device("cpu")) as ranks:
        torch.manual_seed(1)
        both = torch.randn(2, 8, 4, dtype=torch.float64)
        part = slice(ranks.rank * 8 // ranks.world, (ranks.rank + 1) * 8 // ranks.world)
        first, second = (view[part].clone().requires_grad_() for view in both)
        loss = nt_xent(first, second, 0.2, images=torch.from_numpy(PATIENTS))
        grads = torch.autograd.grad(loss, (first, second))
        torch.save((loss.detach(), torch.stack(grads) / ranks.world), Path(out) / f"{ranks.world}-{ranks.rank}.pt")


def test_four_ranks_leave_the_same_patients_out_as_one(tmp_path):
    ranked(str(tmp_path))
    code, errors = run_forked(ranked, str(tmp_path), nproc=4, log=tmp_path / "errors")
    assert code == 0, errors[-2000:]
    loss, gradient = torch.load(tmp_path / "1-0.pt")
    parts = [torch.load(tmp_path / f"4-{rank}.pt") for rank in range(4)]
    assert all(torch.allclose(part[0], loss, rtol=1e-12) for part in parts)
    assert torch.allclose(torch.cat([part[1] for part in parts], 1), gradient, atol=1e-12)


def test_what_stands_at_a_place_is_named_only_where_it_must_be():
    positions = np.array([0, 1, 3, 6])
    assert names(positions, None, None) is None
    assert names(np.array([0, 1, 0, 6]), None, None) is not None, "an image twice in the batch that closes an epoch"
    assert names(positions, np.array([2, 5, 3, 6]), None) is None, "an image beside itself is its own partner"
    repeated = names(np.array([0, 2, 3, 6]), np.array([2, 4, 3, 6]), None)
    assert repeated is not None and repeated.tolist() == [0, 2, 3, 6, 2, 4, 3, 6]
    by_patient = names(positions, np.array([2, 5, 3, 6]), PATIENTS)
    assert by_patient is not None and by_patient.tolist() == [4, 0, 1, 2]


def test_a_loader_reads_the_partners_behind_the_images(pairs):
    shards = ShardSet(pairs, "train")
    partners, order = Partners(patients_of(shards), 2), Order(len(shards), seed=2, global_batch=8)
    for rank in range(2):
        loader = Loader(shards, order, rank=rank, world=2, stop_step=2, workers=rank, partners=partners)
        for step, positions, images in loader:
            part = slice(rank * 4, rank * 4 + 4)
            beside = partners(step, positions)[part]
            assert torch.equal(images, torch.cat([shards.images(positions[part]), shards.images(beside)]))


BY_PATIENT: dict[str, Any] = {"positives": "patient", "negatives": "other_patients", "global_batch": 12, "steps": 4}


def test_pairs_by_patient_resume_bit_identically_and_are_another_run(pairs, make_run):
    make = lambda name, **more: make_run(name, shards=str(pairs), **{**BY_PATIENT, **more})  # noqa: E731
    whole, stopped = make("whole"), make("stopped")
    go(whole, 2)
    go(stopped, 2, 2)
    assert checkpoint.steps(stopped.checkpoints)[-1] == 2
    go(stopped, 2)
    assert same(whole, stopped)
    signatures = {make(f"run{n}", positives=p, negatives=q).read_info()["signature"]
                  for n, (p, q) in enumerate([("image", "all"), ("patient", "all"), ("image", "other_patients"),
                                              ("patient", "other_patients")])}  # fmt: skip
    assert len(signatures) == 4


def test_vicreg_pairs_by_patient_but_has_no_negatives():
    values = {"shards": "s", "out": "o", "method": "vicreg", "positives": "patient"}
    validate(from_dict(PretrainConfig, values))
    with pytest.raises(InputError, match="negatives is a setting of --method simclr"):
        validate(from_dict(PretrainConfig, {**values, "negatives": "other_patients"}))
