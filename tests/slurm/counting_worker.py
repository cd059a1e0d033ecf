"""A training loop reduced to what the launcher and the cluster must keep whole: steps, samples, ranks, checkpoints.

`python -m counting_worker FOLDER` (ranks from torchrun, gloo). Each step all ranks add a value made of the step's
samples to a weight vector; a stop request is agreed on at the end of a step, saved once, and the process ends with 0.
FOLDER/log.jsonl gets one line per step (step, samples, time, job, restart); FOLDER/final.json the weights, last.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import time
from pathlib import Path

from slurm.importing import large_modules
from slurm.signals import StopRequest

with large_modules():
    import torch
    import torch.distributed as dist

GLOBAL_BATCH = 12


def main() -> None:
    stop = StopRequest().install()
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--step_seconds", type=float, default=0.05)
    parser.add_argument("--save_every", type=int, default=10)
    parser.add_argument("--die_at", type=int, help="the last rank kills itself at this step, the first time")
    parser.add_argument("--fail_at", type=int, help="raise at this step")
    parser.add_argument("--eat_at", type=int, help="fill 4 GiB of memory at this step")
    parser.add_argument("--deaf", action="store_true", help="take no notice of stop signals")
    options = parser.parse_args()
    rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    if "RANK" in os.environ:
        dist.init_process_group("gloo")
    folder: Path = options.folder
    step, weights = load(folder)
    while step < options.steps:
        samples = torch.arange(step * GLOBAL_BATCH, (step + 1) * GLOBAL_BATCH)
        share = GLOBAL_BATCH // world
        mine = samples[rank * share : (rank + 1) * share].double()
        change = torch.sin(mine[:, None] * torch.arange(1, 9).double()).sum(0)
        asked = torch.tensor([float(stop.requested and not options.deaf)])
        if world > 1:
            dist.all_reduce(change)
            dist.all_reduce(asked, op=dist.ReduceOp.MAX)
        weights = 0.97 * weights + change
        step += 1
        time.sleep(options.step_seconds)
        if rank == 0:
            line = {"step": step, "samples": samples.tolist(), "time": time.time(), "world": world}
            line |= {"job": os.environ.get("SLURM_JOB_ID"), "restart": os.environ.get("SLURM_RESTART_COUNT", "0")}
            with (folder / "log.jsonl").open("a") as log:
                log.write(json.dumps(line) + "\n")
        if options.die_at == step and rank == world - 1 and not (folder / "died").exists():
            (folder / "died").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if options.eat_at == step:
            print(len(bytearray(b"x") * (4 << 30)))
        if options.fail_at == step:
            raise RuntimeError("this step cannot be taken")
        if asked.item() or step % options.save_every == 0:
            if rank == 0:
                save(folder, step, weights)
            if asked.item():
                print(f"stopped after step {step} by {stop.signal_name}", flush=True)
                if world > 1:
                    dist.barrier()
                    dist.destroy_process_group()
                return
    if rank == 0:
        write(folder / "final.json", {"step": step, "weights": [value.hex() for value in weights.tolist()]})
    if world > 1:
        dist.barrier()
        dist.destroy_process_group()


def load(folder: Path) -> tuple[int, torch.Tensor]:
    try:
        state = json.loads((folder / "checkpoint.json").read_text())
    except FileNotFoundError:
        return 0, torch.zeros(8, dtype=torch.float64)
    return state["step"], torch.tensor([float.fromhex(value) for value in state["weights"]], dtype=torch.float64)


def save(folder: Path, step: int, weights: torch.Tensor) -> None:
    state = {"step": step, "weights": [value.hex() for value in weights.tolist()], "time": time.time()}
    write(folder / "checkpoint.json", state)
    with (folder / "saves.jsonl").open("a") as log:
        log.write(json.dumps({"step": step, "time": time.time()}) + "\n")


def write(path: Path, content: dict) -> None:
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(content))
    os.replace(temporary, path)


if __name__ == "__main__":
    main()
