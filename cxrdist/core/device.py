"""Which device computes, in which precision, with how many threads."""

import contextlib
import ctypes
import os
import sys
from collections.abc import Iterator
from typing import Any

import torch
import torch.utils.deterministic

from cxrdist.errors import FailedError, InputError
from shards.processes import cores as usable_cores

LOWEST_SCALE = 1e-4
"""Of gradients in fp16. It is halved at every step whose gradient is not finite, which is then not taken: from 65,536
thirty times in a row."""


def pick_device(name: str = "auto", local_rank: int | None = None) -> torch.device:
    """The device of this process, which keeps freed memory from here on where it computes on the CPU.

    Whatever trains or scores asks here, so that nothing forgets `keep_freed_memory`.

    Args:
        name: auto (the GPU where there is one), cpu or cuda.
        local_rank: rank on this node, chooses the GPU; None: LOCAL_RANK of the environment, else 0.

    Raises:
        InputError: cuda was asked for and there is no such GPU.
        FailedError: auto, in a job that was given GPUs that torch cannot use: days on the CPU are not what was meant.
    """
    if name == "auto" and not torch.cuda.is_available():
        given = job_gpus()
        if given:
            raise FailedError(
                f"this job has {given}, but torch cannot use a GPU: {_no_cuda()}; `cxrdist doctor --profile NAME` "
                "says more; --device cpu trains on the CPU"
            )
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        keep_freed_memory()
        return torch.device("cpu")
    if name not in ("auto", "cuda"):
        raise InputError(f"device {name!r} is unknown; use auto, cpu or cuda")
    index = int(os.environ.get("LOCAL_RANK", "0")) if local_rank is None else local_rank
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if index >= count:
        raise InputError(f"GPU {index} was asked for, but {count} are visible; use --device cpu or fewer ranks")
    torch.cuda.set_device(index)
    return torch.device("cuda", index)


def job_gpus() -> str:
    """Which GPUs SLURM gave this job, in words; empty where it gave none, or where they are hidden on purpose."""
    if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):  # so Ray tells a trial that it gets none
        return ""
    for name in ("CXRDIST_GPUS_PER_NODE", "SLURM_GPUS_ON_NODE"):
        count = os.environ.get(name, "")
        if count.isdigit() and int(count) > 0:
            return f"{int(count)} GPU{'s' if int(count) > 1 else ''} on this node"
    numbers = os.environ.get("SLURM_STEP_GPUS") or os.environ.get("SLURM_JOB_GPUS")
    return f"GPU {numbers}" if numbers else ""


def _no_cuda() -> str:
    """Why torch has no GPU."""
    if torch.version.cuda is None and torch.version.hip is None:
        return f"torch {torch.__version__} is built for CPUs only"
    try:
        torch.cuda.init()
    except (RuntimeError, AssertionError) as error:
        return str(error).strip().splitlines()[0]
    return f"it counts {torch.cuda.device_count()} (CUDA_VISIBLE_DEVICES={os.environ.get('CUDA_VISIBLE_DEVICES')})"


def cpu_has_bf16() -> bool:
    """Whether this CPU multiplies bf16 in hardware (AVX-512 BF16 or AMX), and may: oneDNN can be held to less."""
    limit = os.environ.get("ONEDNN_MAX_CPU_ISA") or os.environ.get("DNNL_MAX_CPU_ISA") or "ALL"
    if not any(word in limit.upper() for word in ("BF16", "FP16", "AMX", "AVX10", "ALL", "DEFAULT")):
        return False
    try:
        found = torch.cpu.get_capabilities()
        return bool(found.get("avx512_bf16") or found.get("amx_bf16"))
    except (AttributeError, RuntimeError):  # torch before 2.12 keeps the checks in private names
        try:
            with open("/proc/cpuinfo", encoding="ascii", errors="replace") as file:
                flags = next((line for line in file if line.startswith("flags")), "").split()
            return "avx512_bf16" in flags or "amx_bf16" in flags
        except OSError:
            return False


def resolve_precision(
    precision: str, device: torch.device, image_size: int, stem: str = "standard", *, scaled: bool = False
) -> str:
    """The precision that `auto` stands for, float32, bf16 or fp16; and float32 as it is meant from here on.

    float32 is IEEE's, with products of 24 bits; tf32, which torch takes for convolutions on GPUs unless told otherwise,
    rounds factors to 11 bits and has to be asked for. On the CPU tf32 is float32. fp16 needs its gradients scaled, so
    `auto` takes it for those alone that do so, on GPUs without bf16 (V100, T4). bf16 that will be emulated is said in a
    line.

    Args:
        precision: auto, float32, tf32, bf16 or fp16.
        device: that computes.
        image_size: side of the images, pixels.
        stem: of the network, see `backbones.stem_for`.
        scaled: the caller scales gradients (torch.amp.GradScaler).

    On a CPU with AVX-512 BF16 bf16 pays from about 64 pixels (measured on ResNet-18, channels_last: 1.5 times at 64,
    2 times at 224, 0.9 at 28), and at 28 with the small stem, which keeps the maps large (1.6 times).
    """
    if precision == "tf32" and device.type == "cpu":
        precision = "float32"
    _set_float32("tf32" if precision == "tf32" else "ieee")
    if precision != "auto":
        if precision == "bf16" and device.type == "cpu" and not cpu_has_bf16():
            _say_emulated()
        return precision
    if device.type == "cuda":
        narrow = "fp16" if scaled else "float32"
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else narrow
    return "bf16" if (image_size >= 64 or stem == "small") and cpu_has_bf16() else "float32"


def _set_float32(kind: str) -> None:
    """How GPUs multiply float32 numbers: ieee or tf32, in matrix products and convolutions alike."""
    _set_matmul(kind)
    torch.backends.cudnn.allow_tf32 = kind == "tf32"
    for operator in ("conv", "rnn"):
        getattr(torch.backends.cudnn, operator).fp32_precision = kind


def _set_matmul(kind: str) -> None:
    """The older switch first: torch's exporter and compiler still read it, and fail where the two disagree."""
    torch.backends.cuda.matmul.allow_tf32 = kind == "tf32"
    torch.backends.cuda.matmul.fp32_precision = kind


@contextlib.contextmanager
def exact_products() -> Iterator[None]:
    """Context in which GPUs multiply float32 matrices as IEEE says, whatever `resolve_precision` chose.

    For heads that are not trained by gradients: weights of a kernel are large and of both signs, and TF32's 11 bits
    would leave little of their sum.
    """
    before = str(torch.backends.cuda.matmul.fp32_precision)
    _set_matmul("ieee")
    try:
        yield
    finally:
        _set_matmul(before)


def _say_emulated() -> None:
    if os.environ.get("RANK", "0") == "0":
        text = "this CPU does not compute in bf16: it is emulated, many times slower than --precision float32 or auto"
        print(f"warning: {text}", file=sys.stderr, flush=True)


def autocast(device: torch.device, precision: str) -> contextlib.AbstractContextManager[Any]:
    """Context in which the backbone runs; `precision` as `resolve_precision` gives it."""
    if precision in ("float32", "tf32"):
        return contextlib.nullcontext()
    if precision not in ("bf16", "fp16"):
        raise InputError(f"precision {precision!r} is unknown; use auto, float32, tf32, bf16 or fp16")
    return torch.autocast(device.type, dtype=torch.bfloat16 if precision == "bf16" else torch.float16)


def gradient_scaler(device: torch.device, precision: str) -> torch.amp.GradScaler | None:
    """What scales the loss before the backward pass, so that small gradients survive in fp16; None for others.

    A step whose gradient is not finite is not taken and the scale halved, which is how the scale finds its height; the
    loss itself is not scaled, and one that is not finite is as wrong as in any precision.
    """
    return torch.amp.GradScaler(device.type) if precision == "fp16" else None


def refuse_lowest_scale(scaler: torch.amp.GradScaler, step: int) -> None:
    """Stop a run that no longer moves because its gradients are finite at no scale.

    Raises:
        FailedError: naming scale and step.
    """
    if scaler.get_scale() < LOWEST_SCALE:
        raise FailedError(
            f"gradients in fp16 are not finite at any scale (down to {scaler.get_scale():.1g}) at step {step}, so that "
            "the weights no longer move; use --precision bf16 or float32 (in a new --out)"
        )


def take_deterministic_kernels(required: bool) -> None:
    """Let torch compute by deterministic kernels alone; before this process's first product on a GPU.

    Args:
        required: an operation that has no such kernel is an error; else a warning.
    """
    # cuBLAS is deterministic only with workspaces of a fixed size, without which torch would refuse to multiply.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=not required)
    # A debugging aid that would cost time.
    torch.utils.deterministic.fill_uninitialized_memory = False  # pyright: ignore[reportAttributeAccessIssue]


def set_threads(nproc: int, threads: int | None = None) -> int:
    """Share this machine's usable cores among `nproc` ranks; OMP_NUM_THREADS, where set, wins.

    Args:
        nproc: ranks on this machine.
        threads: a number that was asked for, before all else.

    Returns:
        The threads.
    """
    asked = os.environ.get("OMP_NUM_THREADS", "")
    if threads is None:
        threads = int(asked) if asked.isdecimal() and int(asked[:9]) > 0 else max(1, usable_cores() // max(1, nproc))
    torch.set_num_threads(threads)
    return threads


def keep_freed_memory() -> bool:
    """Let this process keep memory that tensors gave back, as torch does on GPUs; returns whether glibc agreed.

    glibc hands every large block back to the kernel, which clears it again for the next step: some 200,000 page faults
    in a step of a ResNet-18 on 64 views of 224 pixels. The price is a heap that stays at its largest.
    """
    trim_threshold, mmap_max = -1, -4  # M_TRIM_THRESHOLD and M_MMAP_MAX of mallopt(3)
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return False
    return bool(mallopt(mmap_max, 0)) and bool(mallopt(trim_threshold, -1))


def memory_mib(device: torch.device) -> float:
    """Largest memory use of this process so far, MiB: device memory on a GPU, resident memory on the CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
