"""Which device a process takes, which precision computes, and what is said of one that the CPU only emulates."""

import os
import platform
import resource
from pathlib import Path
from typing import Any

import pytest
import torch

from cxrdist.core import device
from cxrdist.core.device import (
    cpu_has_bf16,
    exact_products,
    job_gpus,
    pick_device,
    resolve_precision,
    take_deterministic_kernels,
)
from cxrdist.errors import FailedError, InputError
from tests.cxrdist.forked import run_forked

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


NAMES = ("CXRDIST_GPUS_PER_NODE", "SLURM_GPUS_ON_NODE", "SLURM_STEP_GPUS", "SLURM_JOB_GPUS", "CUDA_VISIBLE_DEVICES")
needs_no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="no GPU: this machine has one")


@pytest.fixture
def outside_of_jobs(monkeypatch):
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)


@needs_no_gpu
@pytest.mark.usefixtures("outside_of_jobs")
@pytest.mark.parametrize(
    ("name", "value"),
    [("CXRDIST_GPUS_PER_NODE", "2"), ("SLURM_GPUS_ON_NODE", "1"), ("SLURM_STEP_GPUS", "0,1"), ("SLURM_JOB_GPUS", "3")],
)
def test_auto_never_falls_back_to_the_cpu_in_a_job_with_gpus(monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    with pytest.raises(FailedError, match=r"this job has .*GPU.* torch cannot use a GPU: .{10,}--device cpu"):
        pick_device("auto")
    assert pick_device("cpu").type == "cpu"


@needs_no_gpu
@pytest.mark.usefixtures("outside_of_jobs")
def test_auto_is_the_cpu_where_no_gpu_was_given(monkeypatch):
    assert pick_device("auto").type == "cpu"
    monkeypatch.setenv("SLURM_GPUS_ON_NODE", "0")
    assert pick_device("auto").type == "cpu"
    monkeypatch.setenv("SLURM_GPUS_ON_NODE", "4")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # a trial that Ray gives none of them
    assert pick_device("auto").type == "cpu" and job_gpus() == ""
    with pytest.raises(InputError, match="GPU 0 was asked for, but 0 are visible"):
        pick_device("cuda")


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library keeps memory in its own way")
def faults_of_reuse(out: str) -> None:
    """Write how many pages eight uses of one size cost. Runs in a process of its own, whose heap no test has used."""
    pick_device("cpu")

    def fill() -> None:
        torch.empty(16 << 20).fill_(1.0)  # 64 MiB, 16,384 pages

    for _ in range(4):
        fill()  # the heap grows again where something else has been laid behind the first
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(8):
        fill()
    Path(out).write_text(str(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before))


def test_a_process_that_computes_on_the_cpu_keeps_the_memory_that_tensors_give_back(tmp_path):
    code, errors = run_forked(faults_of_reuse, str(tmp_path / "faults"), nproc=1, log=tmp_path / "errors")
    assert code == 0, errors
    # The heap may grow once more; cleared anew each time, eight uses would cost 131,072.
    assert int((tmp_path / "faults").read_text()) < 2 * 16_384


@pytest.fixture
def products():
    """Put back how GPUs multiply float32 numbers."""
    cudnn: Any = torch.backends.cudnn
    matmul = torch.backends.cuda.matmul
    conv, rnn = cudnn.conv, cudnn.rnn
    before = matmul.fp32_precision, conv.fp32_precision, rnn.fp32_precision
    older = matmul.allow_tf32, cudnn.allow_tf32
    yield lambda: (matmul.fp32_precision, conv.fp32_precision)
    matmul.allow_tf32, cudnn.allow_tf32 = older
    matmul.fp32_precision, conv.fp32_precision, rnn.fp32_precision = before


def test_float32_is_that_of_ieee_unless_tf32_is_asked_for(products):
    gpu = torch.device("cuda")  # its name alone: no card is needed to choose
    assert resolve_precision("float32", gpu, 224) == "float32" and products() == ("ieee", "ieee")
    assert resolve_precision("tf32", gpu, 224) == "tf32" and products() == ("tf32", "tf32")
    assert resolve_precision("bf16", gpu, 224) == "bf16" and products() == ("ieee", "ieee")
    assert resolve_precision("tf32", CPU, 224) == "float32" and products() == ("ieee", "ieee")


def test_torchs_older_switches_say_the_same_as_the_newer_ones(products):
    """Its exporter and compiler ask them, and torch raises where the two disagree."""
    for precision, narrow in (("float32", False), ("tf32", True), ("float32", False)):
        resolve_precision(precision, torch.device("cuda"), 224)
        assert torch.backends.cudnn.allow_tf32 is torch.backends.cuda.matmul.allow_tf32 is narrow
        with exact_products():
            assert torch.backends.cudnn.allow_tf32 is narrow and not torch.backends.cuda.matmul.allow_tf32


def test_heads_multiply_exactly_even_where_networks_take_tf32(products):
    resolve_precision("tf32", torch.device("cuda"), 224)
    with exact_products():
        assert products() == ("ieee", "tf32")
    assert products() == ("tf32", "tf32")


def test_fp16_is_chosen_for_cards_without_bf16_where_gradients_are_scaled(products, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: False)
    gpu = torch.device("cuda")
    assert resolve_precision("auto", gpu, 224, scaled=True) == "fp16"
    assert resolve_precision("auto", gpu, 224) == "float32", "nobody scales the gradients of a fine-tuning"


@pytest.mark.gpu
def test_a_rank_for_which_there_is_no_card_is_refused_in_one_line():
    count = torch.cuda.device_count()
    with pytest.raises(InputError, match=f"GPU {count} was asked for, but {count} are visible; .* fewer ranks"):
        pick_device("auto", local_rank=count)


def test_deterministic_kernels_bring_the_workspaces_that_cublas_needs_for_them(monkeypatch):
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    try:
        take_deterministic_kernels(required=True)
        assert torch.are_deterministic_algorithms_enabled()
        assert not torch.is_deterministic_algorithms_warn_only_enabled()
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    finally:
        torch.use_deterministic_algorithms(False)
