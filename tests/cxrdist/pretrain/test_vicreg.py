"""VICReg against the paper's formulae."""

import pytest
import torch

from cxrdist.pretrain.losses.vicreg import VICReg, vicreg
from cxrdist.pretrain.methods import VICRegConfig


def from_the_paper(a: torch.Tensor, b: torch.Tensor, weights: tuple[float, float, float]) -> torch.Tensor:
    """Bardes et al., section 4.1, number by number; the invariance as in algorithm 1, a mean of squares."""
    n, d = a.shape
    s = sum((a[i, j] - b[i, j]) ** 2 for i in range(n) for j in range(d)) / (n * d)
    v, c = [], []
    for z in (a, b):
        mean = [sum(z[i, j] for i in range(n)) / n for j in range(d)]
        c_jk = [
            [sum((z[i, j] - mean[j]) * (z[i, k] - mean[k]) for i in range(n)) / (n - 1) for k in range(d)]
            for j in range(d)
        ]
        v.append(sum(torch.relu(torch.as_tensor(1 - (c_jk[j][j] + 1e-4) ** 0.5)) for j in range(d)) / d)
        c.append(sum(c_jk[j][k] ** 2 for j in range(d) for k in range(d) if j != k) / d)
    return weights[0] * s + weights[1] * (v[0] + v[1]) + weights[2] * (c[0] + c[1])  # pyright: ignore[reportReturnType]


@pytest.mark.parametrize("shape", [(7, 4), (4, 7), (5, 5), (2, 1)])
@pytest.mark.parametrize("weights", [(25.0, 25.0, 1.0), (0.0, 0.0, 3.0), (0.0, 2.0, 0.0), (1.0, 0.0, 0.0)])
def test_loss_and_gradient_are_those_of_the_paper(shape, weights):
    torch.manual_seed(sum(shape))
    # Some dimensions deviate by less than 1, some by more: the hinge is on both sides.
    scale = torch.linspace(0.2, 2, shape[1], dtype=torch.float64)
    z1, z2 = ((torch.randn(shape, dtype=torch.float64) * scale + 3).requires_grad_() for _ in range(2))
    expected = from_the_paper(z1, z2, weights)
    loss = vicreg(z1, z2, invariance=weights[0], variance=weights[1], covariance=weights[2])
    assert loss.item() == pytest.approx(expected.item(), rel=1e-12, abs=1e-15)
    wanted = torch.autograd.grad(expected + 0 * (z1 + z2).sum(), (z1, z2))
    for got, want in zip(torch.autograd.grad(loss, (z1, z2)), wanted, strict=True):
        assert torch.allclose(got, want, rtol=1e-9, atol=1e-12)


def test_the_coefficients_are_the_papers_unless_others_are_given():
    torch.manual_seed(0)
    z1, z2 = torch.randn(2, 6, 3, dtype=torch.float64)
    expected = float(from_the_paper(z1, z2, (25, 25, 1)))
    assert float(vicreg(z1, z2)) == pytest.approx(expected, rel=1e-12)
    assert float(VICReg(VICRegConfig()).loss(z1, z2)) == pytest.approx(expected, rel=1e-12)
    changed = VICReg(VICRegConfig(invariance=1, variance=2, covariance=3)).loss(z1, z2)
    assert float(changed) == pytest.approx(float(from_the_paper(z1, z2, (1, 2, 3))), rel=1e-12)


def test_it_agrees_with_lightly_but_for_the_halved_variance():
    loss = pytest.importorskip("lightly.loss", reason="lightly: not installed")
    torch.manual_seed(1)
    z1, z2 = torch.randn(2, 32, 16)
    theirs = float(loss.VICRegLoss()(z1, z2))
    assert float(vicreg(z1, z2, variance=12.5)) == pytest.approx(theirs, rel=1e-5)


def test_a_collapse_costs_the_whole_variance_term_and_spread_embeddings_nothing():
    same = torch.ones(8, 4)
    assert float(vicreg(same, same)) == pytest.approx(50 * 0.99, rel=1e-6)  # the root of epsilon is 0.01
    spread = 3 * torch.cat([torch.eye(4), -torch.eye(4)])  # no two dimensions vary together
    assert float(vicreg(spread, spread)) == 0


def test_half_precision_embeddings_are_measured_in_float32():
    torch.manual_seed(0)
    z1, z2 = torch.randn(2, 40, 16).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = vicreg(z1, z2)
    assert got.dtype == torch.float32
    assert float(got) == pytest.approx(float(vicreg(z1.double(), z2.double())), rel=1e-5)


def test_unusable_input_is_refused():
    z = torch.randn(4, 3)
    with pytest.raises(ValueError, match="same shape"):
        vicreg(z, z[:3])
    with pytest.raises(ValueError, match="at least two"):
        vicreg(z[:1], z[:1])


def test_the_expander_has_the_widths_that_were_asked_for_and_no_bias_that_the_loss_would_not_see():
    head = VICReg(VICRegConfig(expander=[6, 5, 4])).head(3)
    assert [tuple(p.shape) for name, p in head.named_parameters() if p.ndim == 2] == [(6, 3), (5, 6), (4, 5)]
    kinds = [type(layer).__name__ for layer in head.children()]
    assert kinds == ["Linear", "BatchNorm1d", "ReLU", "Linear", "BatchNorm1d", "ReLU", "Linear"]
    assert head(torch.randn(2, 3)).shape == (2, 4)
    alone = VICReg(VICRegConfig(expander=[9])).head(3)
    assert alone(torch.randn(1, 3)).shape == (1, 9)
