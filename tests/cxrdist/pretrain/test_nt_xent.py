"""NT-Xent against its definition."""

import math
import resource
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from cxrdist.pretrain.losses import nt_xent as losses
from cxrdist.pretrain.losses.nt_xent import nt_xent
from tests.cxrdist.forked import run_forked


def by_definition(z1: torch.Tensor, z2: torch.Tensor, t: float, images: list[int] | None = None) -> torch.Tensor:
    """Equation 1 of Chen et al., term by term, for every anchor; other views of its own image are left out."""
    z = F.normalize(torch.cat([z1, z2]), dim=1)
    n = len(z1)
    named = [*range(n), *range(n)] if images is None else [*images, *images]
    terms = []
    for i in range(2 * n):
        j = (i + n) % (2 * n)
        s = [torch.exp(z[i] @ z[k] / t) for k in range(2 * n) if k == j or named[k] != named[i]]
        terms.append(-torch.log(torch.exp(z[i] @ z[j] / t) / sum(s)))
    return torch.stack(terms).mean()


@pytest.mark.parametrize("temperature", [0.05, 0.2, 1.0])
def test_loss_and_gradient_are_those_of_the_definition(temperature, monkeypatch):
    monkeypatch.setattr(
        "cxrdist.pretrain.losses.nt_xent._CHUNK_BYTES", 4 * 14 * 3
    )  # several chunks, the last one short
    torch.manual_seed(0)
    z1, z2 = (torch.randn(7, 5, dtype=torch.float64, requires_grad=True) for _ in range(2))
    expected = by_definition(z1, z2, temperature)
    wanted = torch.autograd.grad(expected, (z1, z2))
    loss = nt_xent(z1, z2, temperature)
    got = torch.autograd.grad(2 * loss, (z1, z2))
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    for a, b in zip(got, wanted, strict=True):
        assert torch.allclose(a, 2 * b, atol=2e-6)


def test_an_image_that_stands_twice_in_a_batch_is_no_negative_of_itself(monkeypatch):
    monkeypatch.setattr("cxrdist.pretrain.losses.nt_xent._CHUNK_BYTES", 4 * 12 * 5)
    torch.manual_seed(0)
    images = [4, 9, 4, 1, 9, 4]
    z1, z2 = (torch.randn(6, 5, dtype=torch.float64, requires_grad=True) for _ in range(2))
    expected = by_definition(z1, z2, 0.2, images)
    loss = nt_xent(z1, z2, 0.2, images=torch.tensor(images))
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-9)
    wanted = torch.autograd.grad(expected, (z1, z2))
    for a, b in zip(torch.autograd.grad(loss, (z1, z2)), wanted, strict=True):
        assert torch.allclose(a, b, atol=1e-9)
    assert float(nt_xent(z1, z2, 0.2).detach()) > float(loss.detach()) + 0.05
    with pytest.raises(ValueError, match="6 images are compared"):
        nt_xent(z1, z2, 0.2, images=torch.tensor([1, 2]))


def test_random_embeddings_lose_about_the_log_of_the_batch_and_equal_ones_exactly():
    z = torch.ones(50, 8)
    assert float(nt_xent(z, z, 0.3)) == pytest.approx(math.log(99), rel=1e-6)
    torch.manual_seed(0)
    assert float(nt_xent(torch.randn(500, 512), torch.randn(500, 512), 1.0)) == pytest.approx(math.log(999), rel=0.01)


def test_half_precision_embeddings_are_compared_in_float32():
    torch.manual_seed(0)
    z1, z2 = torch.randn(2, 40, 16).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = nt_xent(z1, z2, 0.05)
    assert got.dtype == torch.float32
    assert float(got) == pytest.approx(float(by_definition(z1.double(), z2.double(), 0.05)), rel=1e-5)


def test_it_agrees_with_lightly():
    loss = pytest.importorskip("lightly.loss", reason="lightly: not installed")
    torch.manual_seed(1)
    z1, z2 = torch.randn(2, 32, 16)
    assert float(nt_xent(z1, z2, 0.1)) == pytest.approx(float(loss.NTXentLoss(0.1)(z1, z2)), rel=1e-5)


def test_unusable_input_is_refused():
    z = torch.randn(4, 3)
    with pytest.raises(ValueError, match="same shape"):
        nt_xent(z, z[:3], 0.1)
    with pytest.raises(ValueError, match="positive"):
        nt_xent(z, z, 0.0)
    with pytest.raises(ValueError, match="two images"):
        nt_xent(z[:1], z[:1], 0.1)


def large_batch(out: str) -> None:
    """Write by how many MiB the largest memory grew. Runs in a process of its own, whose memory no test has raised."""

    def gather(z: torch.Tensor, world: int) -> torch.Tensor:  # what the other 63 ranks would send
        return torch.cat([z.detach()] + [torch.randn_like(z) for _ in range(world - 1)], dim=1)

    losses.gather_views = gather  # pyright: ignore[reportPrivateImportUsage]
    losses.dist.all_reduce = lambda tensor: None  # pyright: ignore[reportAttributeAccessIssue]
    losses.dist.get_rank = lambda: 0  # pyright: ignore[reportAttributeAccessIssue]
    z = torch.randn(2, 512, 128, requires_grad=True)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    losses._NTXent.apply(torch.nn.functional.normalize(z, dim=-1), 0.1, 64, None).backward()  # pyright: ignore[reportAttributeAccessIssue]
    assert z.grad is not None and torch.isfinite(z.grad).all()
    Path(out).write_text(str((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024))


def test_a_rank_of_a_batch_of_32768_needs_less_than_a_gigabyte(tmp_path):
    """32,768 embeddings of 128 on one of 64 ranks: 512 rows of its own against 65,536 columns, forward and backward."""
    code, errors = run_forked(large_batch, str(tmp_path / "mib"), nproc=1, log=tmp_path / "errors")
    assert code == 0, errors
    assert 100 < float((tmp_path / "mib").read_text()) < 1024
