"""What one node sees: `python -m slurm.probe FOLDER [--gpus]`, which `cxrdist doctor` starts by srun; prints JSON."""

from __future__ import annotations

import json
import os
import resource
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

from slurm.environment import versions
from slurm.launch import available_cores
from slurm.processes import python

GPU_QUESTION = """
import json, torch
print(json.dumps({"torch_gpus": torch.cuda.device_count(), "nccl": torch.distributed.is_nccl_available()}))
"""
# Asked of a process of its own: this package does not import torch.


def facts(folder: Path, gpus: bool) -> dict:
    """Return what this machine offers; nothing here raises for what is merely absent."""
    found: dict = {"host": socket.gethostname(), "time": time.time(), "versions": versions()}
    found["executable"] = sys.executable
    found["open_files"] = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    memlock = resource.getrlimit(resource.RLIMIT_MEMLOCK)[0]
    found["memlock_unlimited"] = memlock == resource.RLIM_INFINITY
    found["cores"] = available_cores()
    found["shm_mib"] = shutil.disk_usage("/dev/shm").total >> 20 if Path("/dev/shm").is_dir() else 0
    try:
        mark = folder / f"probe-{socket.gethostname()}-{os.environ.get('SLURM_PROCID', '0')}"
        mark.write_text("x")
        found["sees"] = (folder / "login").is_file()
    except OSError as error:
        found["write_error"] = error.strerror or str(error)
    if gpus:
        found["cuda_visible_devices"] = os.environ.get("CUDA_VISIBLE_DEVICES")
        if shutil.which("nvidia-smi"):
            shown = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=60)
            found["gpus"] = [line.partition(" (UUID")[0] for line in shown.stdout.splitlines()]
        asked = subprocess.run(python("-c", GPU_QUESTION), capture_output=True, text=True, timeout=120)
        try:
            found |= json.loads(asked.stdout)
        except ValueError:
            found["torch_error"] = (asked.stderr.strip().splitlines() or ["no message"])[-1]
    return found


if __name__ == "__main__":
    print("PROBE " + json.dumps(facts(Path(sys.argv[1]), "--gpus" in sys.argv)), flush=True)
