"""Learning rates and parameter groups."""

import pytest
import timm
import torch
from torch import nn

from cxrdist.core.weight_decay import split_decay
from cxrdist.errors import InputError
from cxrdist.pretrain.config import OptimConfig
from cxrdist.pretrain.optim import build_optimizer, learning_rate, peak_rate, set_rate


def test_the_rate_grows_with_the_batch_as_named():
    assert peak_rate(OptimConfig(name="lars", lr=0.3), 1024) == pytest.approx(1.2)
    assert peak_rate(OptimConfig(lr=0.3, lr_scaling="sqrt"), 1024) == pytest.approx(0.6)
    assert peak_rate(OptimConfig(lr=0.3, lr_scaling="none"), 1024) == pytest.approx(0.3)


def test_the_rate_warms_up_to_its_peak_and_ends_at_zero():
    config = OptimConfig(lr=1.0, warmup_epochs=2)
    rates = [learning_rate(config, 256, step, 100, 5.0) for step in range(100)]
    assert rates[0] == pytest.approx(0.1) and rates[9] == pytest.approx(1.0)
    assert max(rates) == pytest.approx(1.0) and rates[55] == pytest.approx(0.5, abs=0.02)
    assert all(a > b for a, b in zip(rates[10:], rates[11:], strict=False)) and 0 < rates[99] < 0.001


def test_a_constant_schedule_and_a_floor_are_kept():
    assert learning_rate(OptimConfig(lr=1.0, schedule="constant"), 256, 99, 100, 1.0) == 1.0
    assert learning_rate(OptimConfig(lr=1.0, final_lr=0.1), 256, 100, 100, 1.0) == pytest.approx(0.1)


@pytest.mark.parametrize("name", ["lars", "adamw", "sgd"])
def test_biases_and_normalisation_never_decay(name):
    module = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
    optimizer = build_optimizer(OptimConfig(name=name, weight_decay=0.5), [module])
    set_rate(optimizer, 0.1)
    before = [p.detach().clone() for p in module.parameters()]
    for p in module.parameters():
        p.grad = torch.zeros_like(p)
    optimizer.step()
    changed = [not torch.equal(a, b) for a, b in zip(before, module.parameters(), strict=True)]
    assert changed == [True, False, False, False]


def test_lars_scales_filters_by_their_trust_ratio_but_not_biases():
    """You et al. 2017, equation 6, with SimCLR's coefficient 0.001 and no decay: step = lr * 0.001 * |w| / |g| * g."""
    module = nn.Linear(3, 2)
    optimizer = build_optimizer(OptimConfig(name="lars", weight_decay=1e-9, momentum=0.0), [module])
    set_rate(optimizer, 2.0)
    weight, bias = module.weight.detach().clone(), module.bias.detach().clone()
    module.weight.grad, module.bias.grad = torch.full((2, 3), 0.7), torch.full((2,), 0.7)
    optimizer.step()
    step = 2.0 * 0.001 * weight.norm() / module.weight.grad.norm() * module.weight.grad
    assert torch.allclose(module.weight, weight - step, atol=1e-6)
    assert torch.allclose(module.bias, bias - 2.0 * 0.7)


@pytest.mark.parametrize("decay", [0.0, 1e-6])
def test_lars_adapts_to_the_weights_with_and_without_decay(decay):
    """A step is a share of the weights' norm, however large the gradient is: 0.3 * 0.001 of it here."""
    module = nn.Linear(8, 8, bias=False)
    optimizer = build_optimizer(OptimConfig(name="lars", weight_decay=decay, momentum=0.0), [module])
    set_rate(optimizer, 0.3)
    before = module.weight.detach().clone()
    module.weight.grad = torch.full((8, 8), 50.0)
    optimizer.step()
    assert float((module.weight.detach() - before).norm() / before.norm()) == pytest.approx(0.0003, rel=1e-3)


@pytest.mark.parametrize("arch", ["vit_tiny_patch16_224", "swin_tiny_patch4_window7_224", "beit_base_patch16_224"])
def test_position_embeddings_and_class_tokens_never_decay(arch):
    """What timm's no_weight_decay names, also below the prefix that the whole model gives it."""
    with torch.device("meta"):
        backbone = timm.create_model(arch, num_classes=0)
        model = nn.ModuleDict({"backbone": backbone, "head": nn.Linear(4, 4)})
    decayed, plain = split_decay(model)
    kept = {id(parameter) for parameter in plain}
    special = ("pos_embed", "cls_token", "relative_position_bias_table")
    named = [p for name, p in model.named_parameters() if any(part in name for part in special)]
    assert named and all(id(p) in kept for p in named)
    assert len(decayed) + len(plain) == len(list(model.parameters()))
    assert any(p is model["head"].weight for p in decayed)


def test_an_unknown_optimiser_is_refused():
    with pytest.raises(InputError, match="lars, adamw, sgd"):
        build_optimizer(OptimConfig(name="rmsprop"), [nn.Linear(1, 1)])  # pyright: ignore[reportArgumentType]


def moved(name: str, on_gpu: bool, device: str = "cpu") -> list[torch.Tensor]:
    """The parameters of a small network after four steps, each with its gradient of another draw."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.BatchNorm1d(5), nn.Linear(5, 4)).to(device)
    optimizer = build_optimizer(OptimConfig(name=name, weight_decay=0.1), [module], on_gpu)  # pyright: ignore[reportArgumentType]
    set_rate(optimizer, 0.05)
    for _ in range(4):
        optimizer.zero_grad()
        module(torch.randn(8, 5).to(device)).square().sum().backward()
        optimizer.step()
    return [parameter.detach().cpu() for parameter in module.parameters()]


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("name", ["lars", "adamw", "sgd"])
def test_steps_as_a_gpu_takes_them_are_those_of_the_plain_loop(name, device):
    for ours, plain in zip(moved(name, True, device), moved(name, False), strict=True):
        assert torch.allclose(ours, plain, atol=1e-6 if device == "cpu" else 1e-5)


@pytest.mark.parametrize(("name", "kind"), [("lars", "foreach"), ("adamw", "fused"), ("sgd", "foreach")])
def test_optimisers_take_few_kernels_on_a_gpu_and_on_the_cpu_what_they_always_took(name, kind):
    asked = [
        build_optimizer(OptimConfig(name=name), [nn.Linear(2, 2)], on_gpu).defaults[kind] for on_gpu in (True, False)
    ]
    assert asked[0] is True and not asked[1]


@pytest.fixture
def unset_memory_is_nan():
    """What torch allocates and nobody writes is NaN, not by chance 0."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("name", ["lars", "adamw", "sgd"])
def test_a_step_that_fp16_skips_is_as_if_it_had_not_been(unset_memory_is_nan, name, device):
    """The first of all, as the scale begins too high, and one after others."""
    ends = []
    for skipped in ((), (0, 3)):
        torch.manual_seed(0)
        module = nn.Sequential(nn.BatchNorm1d(5), nn.Linear(5, 4)).to(device)
        optimizer = build_optimizer(OptimConfig(name=name, weight_decay=0.1), [module], on_gpu=True)  # pyright: ignore[reportArgumentType]
        set_rate(optimizer, 0.05)
        scaler = torch.amp.GradScaler(device, init_scale=1024.0)
        for step in range(4 + len(skipped)):
            for parameter in module.parameters():
                own = torch.full_like(parameter, float("inf")) if step in skipped else parameter.detach() + 1
                parameter.grad = own * scaler.scale(torch.ones((), device=device))
            scaler.unscale_(optimizer)
            torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
            scaler.step(optimizer)
            scaler.update()
        ends.append([parameter.detach().cpu() for parameter in module.parameters()])
    for plain, after in zip(*ends, strict=True):
        assert torch.isfinite(after).all() and torch.equal(plain, after)


def lars_by_hand(w: torch.Tensor, g: torch.Tensor, buffer: torch.Tensor, rate: float, decay: float) -> torch.Tensor:
    """One step of one filter bank in float64; `buffer` is the momentum's, changed in place."""
    share = 0.001 * w.norm() / (g.norm() + decay * w.norm() + 1e-8) if w.norm() > 0 and g.norm() > 0 else 1.0
    buffer.mul_(0.9).add_(share * (g + decay * w))
    return w - rate * buffer


@pytest.mark.parametrize("on_gpu", [False, True])
def test_lars_over_several_steps_is_its_formula_for_each_parameter(on_gpu):
    """Also of a parameter that is 0, or whose gradient is: You et al. say nothing of it, timm's ratio is then 1."""
    torch.manual_seed(0)
    module = nn.ModuleList(nn.Linear(n, 3, bias=False) for n in (2, 5, 7, 4))
    parameters = list(module.parameters())
    nn.init.zeros_(parameters[3])
    optimizer = build_optimizer(OptimConfig(name="lars", weight_decay=0.1), [module], on_gpu)
    expected = [(p.detach().double().clone(), torch.zeros_like(p, dtype=torch.float64)) for p in parameters]
    for step in range(5):
        set_rate(optimizer, 0.2 + step)
        for index, parameter in enumerate(parameters):
            parameter.grad = torch.randn_like(parameter) * (0.0 if index == 2 and step == 0 else 1.0)
            w, buffer = expected[index]
            expected[index] = lars_by_hand(w, parameter.grad.double(), buffer, 0.2 + step, 0.1), buffer
        optimizer.step()
    for parameter, (w, _) in zip(parameters, expected, strict=True):
        assert (parameter.detach().double() - w).norm() < 1e-6 * w.norm()


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype")
@pytest.mark.parametrize("name", ["lars", "adamw", "sgd"])
def test_a_step_of_the_optimiser_does_not_wait_for_the_card(name):
    module = nn.Sequential(nn.BatchNorm1d(5), nn.Linear(5, 4)).cuda()
    optimizer = build_optimizer(OptimConfig(name=name), [module], on_gpu=True)
    for parameter in module.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    torch.cuda.set_sync_debug_mode("error")
    try:
        set_rate(optimizer, 0.3)
        torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimizer.step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
