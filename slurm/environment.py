"""The environment a job ran in, as far as it may be written down: chosen names only, never the whole of it."""

from __future__ import annotations

import json
import os
import platform
import socket
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from slurm import atomic

PREFIXES = (
    "SLURM_", "CUDA_", "NCCL_", "GLOO_", "OMP_", "TORCH_", "NVIDIA_VISIBLE", "RAY_ADDRESS", "APPTAINER_CONTAINER",
    "SINGULARITY_CONTAINER",
)  # fmt: skip
"""Variables that say how a job ran; everything else in the environment stays unwritten."""
NEVER = ("TOKEN", "SECRET", "PASS", "KEY", "JWT", "CREDENTIAL", "AUTH")
"""A name with one of these inside is never written, whatever it begins with."""
PACKAGES = ("cxrdist", "torch", "torchvision", "timm", "ray", "submitit", "numpy", "pyarrow")


def variables(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the variables that may be recorded, sorted; `extra` names are included unless they look secret."""
    names = {name for name in os.environ if name.startswith(PREFIXES)} | set(extra or {})
    return {
        name: os.environ.get(name, (extra or {}).get(name, ""))
        for name in sorted(names)
        if not any(word in name.upper() for word in NEVER)
    }


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that can change a result; absent ones are left out."""
    from importlib import metadata  # 15 ms that a login node need not spend

    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def write(path: Path, extra: Mapping[str, str] | None = None) -> None:
    """Write what this process runs in as JSON, readable by the user only."""
    facts = {
        "written_at": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "host": socket.gethostname(),
        "executable": sys.executable,
        "kernel": platform.release(),
        "versions": versions(),
        "variables": variables(extra),
    }
    atomic.write(path, json.dumps(facts, indent=2) + "\n")
