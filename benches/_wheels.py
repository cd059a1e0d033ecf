"""For gpu.sh: unpack the wheels that a Python lacks, without pip or network, and say what machine this is.

usage: python -m benches._wheels WHEELS FOLDER      unpack; prints the names
       python -m benches._wheels --header NAMES     the first lines of the report, or what cannot be imported
"""

from __future__ import annotations

import importlib
import os
import platform
import re
import subprocess
import sys
import time
import zipfile
from importlib import metadata
from pathlib import Path

NEEDED = (
    "torch", "torchvision", "timm", "numpy", "scipy", "pandas", "pyarrow", "cv2", "safetensors", "sklearn", "filelock",
    "fsspec", "huggingface_hub", "jsonargparse", "kornia_rs", "psutil", "simplejpeg", "tomli_w", "tqdm", "webdataset",
    "pytest", "hypothesis",
)  # fmt: skip
"""Modules without which nothing can be run."""
OF_THE_MACHINE = ("torch", "triton", "nvidia", "numpy")
"""How the names of packages begin that are never replaced."""


def unpack(wheels: Path, folder: Path) -> list[str]:
    """Unpack the wheels of distributions that this Python does not have in their version; return their names.

    torch and what is built for it stay those of the machine, whatever their version.
    """
    done = []
    for wheel in sorted(wheels.glob("*.whl")):
        name, version = wheel.name.split("-")[:2]
        try:
            there = metadata.version(name)
        except metadata.PackageNotFoundError:
            there = None
        if there == version or (there is not None and name.startswith(OF_THE_MACHINE)):
            continue
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder)
        done.append(f"{re.sub(r'[_.]+', '-', name)} {version}")
    return done


def header(unpacked: str) -> str:
    """The head of the report.

    Args:
        unpacked: names of the packages that were carried along.

    Raises:
        ImportError: naming the first module that is missing.
    """
    for name in NEEDED:
        importlib.import_module(name)
    import torch

    card = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "no card"
    driver = _said("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")
    cores, load = len(os.sched_getaffinity(0)), os.getloadavg()[0]
    lines = [
        f"# GPU tests and benches: {card}",
        "",
        f"Date: {time.strftime('%Y-%m-%d')}. Hardware: {card}, driver {driver}, {cores} CPU cores, load {load:.1f}; "
        f"Python {platform.python_version()}, torch {torch.__version__}, CUDA {torch.version.cuda}.",
        "",
        f"Commit: {_said('git', 'rev-parse', '--short', 'HEAD')}. Packages carried along: {unpacked or 'none'}.",
    ]
    return "\n".join(lines)


def _said(*command: str) -> str:
    """The first line that a program prints; unknown where it cannot be run."""
    try:
        found = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout.splitlines()
        return found[0] if found else "unknown"
    except (OSError, subprocess.SubprocessError):
        return "unknown"


def main(words: list[str]) -> int:
    try:
        if words[0] == "--header":
            print(header(words[1]))
        else:
            print(", ".join(unpack(Path(words[0]), Path(words[1]))))
    except ImportError as error:
        what = f"{sys.executable} cannot import {error.name or error}: carry its wheel along (LACKS, gpu.sh wheels)"
        print(f"gpu.sh: {what}", file=sys.stderr)
        return 2
    except zipfile.BadZipFile as error:
        print(f"gpu.sh: a wheel in {words[0]} is damaged ({error}); fetch it again", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
