"""Which precision computes, and what is said of one that the CPU only emulates."""

import pytest
import torch

from cxrdist import device
from cxrdist.device import cpu_has_bf16, resolve_precision

CPU = torch.device("cpu")


@pytest.fixture
def cpu(monkeypatch):
    """Make this CPU one that computes in bf16, or not; nothing else holds oneDNN to less."""
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)
    monkeypatch.delenv("DNNL_MAX_CPU_ISA", raising=False)

    def make(bf16: bool) -> None:
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": bf16}, raising=False)

    return make


def test_auto_never_takes_a_precision_that_would_be_emulated(cpu, capsys):
    for bf16, small, large in ((False, "float32", "float32"), (True, "float32", "bf16")):
        cpu(bf16)
        assert resolve_precision("auto", CPU, 28) == small
        assert resolve_precision("auto", CPU, 224) == large
        assert resolve_precision("auto", CPU, 28, stem="small") == large
    assert capsys.readouterr().err == ""


def test_emulated_bf16_is_said_in_one_line_and_used(cpu, capsys):
    cpu(False)
    assert resolve_precision("bf16", CPU, 64) == "bf16"
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "emulated" in said and "--precision float32 or auto" in said
    cpu(True)
    assert resolve_precision("bf16", CPU, 64) == "bf16"
    assert capsys.readouterr().err == ""


def test_one_rank_speaks_for_all(cpu, monkeypatch, capsys):
    cpu(False)
    monkeypatch.setenv("RANK", "1")
    assert resolve_precision("bf16", CPU, 64) == "bf16"
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("limit", "may"),
    [("AVX2", False), ("avx512_core", False), ("AVX512_CORE_BF16", True), ("AVX512_CORE_AMX", True), ("ALL", True)],
)
def test_a_limit_put_on_onednn_counts(cpu, monkeypatch, limit, may):
    cpu(True)
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", limit)
    assert cpu_has_bf16() is may


def test_this_cpu_is_asked_and_answers(monkeypatch):
    assert device.cpu_has_bf16() in (True, False)
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)  # torch before 2.12
    assert device.cpu_has_bf16() in (True, False)
