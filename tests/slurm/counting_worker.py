"""A training loop reduced to what the launcher and the cluster must keep whole: steps, samples, ranks, checkpoints.

`python -m counting_worker FOLDER` (ranks from torchrun). Each step all ranks add a value made of the step's samples to
a weight vector; a stop request is agreed on at the end of a step, saved once, and the process ends with 0.
FOLDER/log.jsonl gets one line per step (step, samples, time, job, restart); FOLDER/final.json the weights, last.
The ranks exchange their sums over sockets; with --gloo by torch, whose import costs each of them 3 s of CPU time.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import signal
import time
from collections.abc import Sequence
from multiprocessing.connection import Client, Connection, Listener
from pathlib import Path
from typing import Any

from slurm.importing import large_modules
from slurm.signals import StopRequest

GLOBAL_BATCH = 12
MEETING_S = 60.0
"""Bound (seconds) on waiting for the first rank to listen."""


class Alone:
    """One rank: the sum over all ranks is its own."""

    def sum(self, values: Sequence[float]) -> list[float]:
        """Add up what the ranks give, number by number; all get the same."""
        return list(values)

    def leave(self) -> None:
        """Wait until all ranks leave."""


class OverSockets(Alone):
    """Rank 0 listens at the address that torchrun tells the ranks, adds up in their order and answers them all."""

    def __init__(self, folder: Path, rank: int, world: int) -> None:
        run, restart = (os.environ[f"TORCHELASTIC_{name}"] for name in ("RUN_ID", "RESTART_COUNT"))
        place = folder / f"port-{run}-{restart}"
        if rank:
            self.others = [_connected(place)]
            self.others[0].send_bytes(str(rank).encode())
        else:
            with Listener(("", 0), backlog=world) as listener:
                write(place, listener.address[1])
                met = [listener.accept() for _ in range(world - 1)]
            self.others = [other for _, other in sorted((int(other.recv_bytes()), other) for other in met)]
        self.rank = rank

    def sum(self, values: Sequence[float]) -> list[float]:
        if self.rank:
            self.others[0].send_bytes(json.dumps(values).encode())
            return json.loads(self.others[0].recv_bytes())
        total = list(values)
        for other in self.others:
            total = added(total, json.loads(other.recv_bytes()))
        for other in self.others:
            other.send_bytes(json.dumps(total).encode())
        return total

    def leave(self) -> None:
        self.sum([])


def _connected(place: Path) -> Connection:
    deadline = time.monotonic() + MEETING_S
    while True:
        try:
            return Client((os.environ["MASTER_ADDR"], json.loads(place.read_text())))
        except OSError:  # it does not listen yet, or no longer: the port is that of ranks which were restarted
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


class OverGloo(Alone):
    """As training ranks do it."""

    def __init__(self) -> None:
        with large_modules():
            import torch
            import torch.distributed as dist

        self.torch, self.dist = torch, dist
        dist.init_process_group("gloo")

    def sum(self, values: Sequence[float]) -> list[float]:
        total: Any = self.torch.tensor(values, dtype=self.torch.float64)
        self.dist.all_reduce(total)
        return total.tolist()

    def leave(self) -> None:
        self.dist.barrier()
        self.dist.destroy_process_group()


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
    parser.add_argument("--gloo", action="store_true", help="exchange by torch")
    options = parser.parse_args()
    rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    folder: Path = options.folder
    if options.gloo:
        group = OverGloo()
    else:
        group = OverSockets(folder, rank, world) if world > 1 else Alone()
    step, weights = load(folder)
    while step < options.steps:
        samples = range(step * GLOBAL_BATCH, (step + 1) * GLOBAL_BATCH)
        *change, asked = group.sum([*change_of(step, rank, world), float(stop.requested and not options.deaf)])
        weights = added([0.97 * weight for weight in weights], change)
        step += 1
        time.sleep(options.step_seconds)
        if rank == 0:
            line = {"step": step, "samples": list(samples), "time": time.time(), "world": world}
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
        if asked or step % options.save_every == 0:
            if rank == 0:
                save(folder, step, weights)
            if asked:
                print(f"stopped after step {step} by {stop.signal_name}", flush=True)
                group.leave()
                return
    if rank == 0:
        write(folder / "final.json", result(step, weights))
    group.leave()


def change_of(step: int, rank: int, world: int) -> list[float]:
    """What a rank gives to a step (from 0): 8 sums over its share of the step's samples."""
    share = GLOBAL_BATCH // world
    first = step * GLOBAL_BATCH + rank * share
    return [sum(math.sin(sample * factor) for sample in range(first, first + share)) for factor in range(1, 9)]


def added(one: Sequence[float], other: Sequence[float]) -> list[float]:
    return [a + b for a, b in zip(one, other, strict=True)]


def unbroken(steps: int, world: int) -> dict[str, Any]:
    """Return what FOLDER/final.json must hold after so many steps on so many ranks, whatever interrupted them."""
    weights = [0.0] * 8
    for step in range(steps):
        total = [0.0] * 8
        for rank in range(world):
            total = added(total, change_of(step, rank, world))
        weights = added([0.97 * weight for weight in weights], total)
    return result(steps, weights)


def result(step: int, weights: Sequence[float]) -> dict[str, Any]:
    return {"step": step, "weights": [value.hex() for value in weights]}


def load(folder: Path) -> tuple[int, list[float]]:
    try:
        state = json.loads((folder / "checkpoint.json").read_text())
    except FileNotFoundError:
        return 0, [0.0] * 8
    return state["step"], [float.fromhex(value) for value in state["weights"]]


def save(folder: Path, step: int, weights: Sequence[float]) -> None:
    state = {"step": step, "weights": [value.hex() for value in weights], "time": time.time()}
    write(folder / "checkpoint.json", state)
    with (folder / "saves.jsonl").open("a") as log:
        log.write(json.dumps({"step": step, "time": time.time()}) + "\n")


def write(path: Path, content: Any) -> None:
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(content))
    os.replace(temporary, path)


if __name__ == "__main__":
    main()
