"""A sweep of 24 small full fine-tunings against two processes, one by one per core: time, and what is lost to Ray.

Run: python -m benches.sweep --shards SHARDS. Prints Markdown for benches/reports/sweep.md.

Three ways do the same 24 trials, each on one thread, two at a time: `cxrdist sweep`; two shells that each call `cxrdist
finetune` twelve times; and two processes that each load torch once and call twelve trials with a common cache, which is
what the sweep would take if Ray cost nothing. The numbers of all three must be the same. Target: >= 1.8x the shells.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benches.pretrain import cpu_name
from cxrdist.core.device import usable_cores
from results import schema
from results.run import Run

SEEDS = 24
SETTINGS = {
    "arch": "small_cnn", "image_size": "28", "mode": "full", "label_fraction": "0.1", "epochs": "4", "min_steps": "60",
    "device": "cpu", "threads": "1",
}  # fmt: skip
LOOP = """
import sys
from cxrdist.finetune import identity, trial
from cxrdist.finetune.parse import from_plain
shards, out, cache, settings, seeds = sys.argv[1], sys.argv[2], sys.argv[3], eval(sys.argv[4]), eval(sys.argv[5])
for seed in seeds:
    config = identity.resolve(from_plain({**settings, "shards": shards, "out": f"{out}/{seed}", "seed": seed,
                                          "cache": cache}, "bench"))
    trial.run_trial(config, identity.make_run(config, command=["bench"]))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shards", required=True)
    options = parser.parse_args()
    environment = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"} | {"OMP_NUM_THREADS": "1"}
    print(f"{cpu_name()}, {usable_cores()} cores, load {os.getloadavg()[0]:.1f}; {SEEDS} trials of {SETTINGS}\n")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / "spec.toml").write_text(_spec())
        ways = {
            "two processes with torch loaded once": _two(folder / "loops", options.shards, _loop),
            "cxrdist sweep": [[*_command("sweep"), "--config", str(folder / "spec.toml"), "--shards", options.shards,
                               "--out", str(folder / "sweep"), "--trials", "2"]],
            "two shells, a command a trial": _two(folder / "shells", options.shards, _shell),
        }  # fmt: skip
        times, cpu = {}, {}
        for name, commands in ways.items():
            times[name], cpu[name] = _run(commands, environment)
        found = [_aurocs(folder / "loops"), _aurocs(folder / "sweep" / "cells"), _aurocs(folder / "shells")]
    print("| way | seconds | CPU seconds | the sweep is |\n|---|---|---|---|")
    sweep = times["cxrdist sweep"]
    for name, seconds in times.items():
        print(f"| {name} | {seconds:.0f} | {cpu[name]:.0f} | {seconds / sweep:.2f}x |")
    bare = times["two processes with torch loaded once"]
    print(f"\nLost to Ray and its start: {sweep - bare:.0f} s, {100 * (1 - bare / sweep):.0f} % of the sweep.")
    print(f"The test AUROCs of all three are equal: {found[0] == found[1] == found[2] and len(found[0]) == SEEDS}.")
    print(f"Load at the end: {os.getloadavg()[0]:.1f}")


def _command(name: str) -> list[str]:
    return [sys.executable, "-m", "jobs.cli", name]


def _spec() -> str:
    shared = "\n".join(
        f"{key} = {value}" if value[0].isdigit() else f'{key} = "{value}"'
        for key, value in SETTINGS.items()
        if key != "threads"  # a sweep's own: one
    )
    return f"[axes]\nseed = {list(range(SEEDS))}\n[finetune]\n{shared}\n"


def _two(out: Path, shards: str, command) -> list[list[str]]:
    out.mkdir()
    return [command(out, shards, range(start, SEEDS, 2)) for start in (0, 1)]


def _loop(out: Path, shards: str, seeds: range) -> list[str]:
    numbers = {"image_size": int, "epochs": int, "min_steps": int, "threads": int, "label_fraction": float}
    settings = {key: numbers.get(key, str)(value) for key, value in SETTINGS.items()}
    return [sys.executable, "-c", LOOP, shards, str(out), str(out / ".cache"), repr(settings), repr(list(seeds))]


def _shell(out: Path, shards: str, seeds: range) -> list[str]:
    options = " ".join(f"--{key} {value}" for key, value in SETTINGS.items())
    one = f"{' '.join(_command('finetune'))} --shards {shards} {options}"
    return ["bash", "-ec", "; ".join(f"{one} --seed {seed} --out {out}/{seed}" for seed in seeds)]


def _run(commands: list[list[str]], environment: dict[str, str]) -> tuple[float, float]:
    """Seconds by the clock, and of CPU time, of commands at a time."""
    began, before = time.perf_counter(), os.times()
    running = [
        subprocess.Popen(words, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for words in commands
    ]
    for process in running:
        if process.wait():
            sys.exit(f"exit code {process.returncode}: {' '.join(process.args)[:300]}")  # pyright: ignore
    after = os.times()
    spent = after.children_user + after.children_system - before.children_user - before.children_system
    return time.perf_counter() - began, spent


def _aurocs(folder: Path) -> dict[int, float]:
    """Test AUROC of every trial below a folder, by seed."""
    found = {}
    for path in folder.glob("[!.]*"):
        rows = schema.read_metrics(Run(path).metrics).to_pylist()
        found[rows[0]["seed"]] = next(r["value"] for r in rows if r["label"] == "macro" and r["metric"] == "auroc")
    return found


if __name__ == "__main__":
    main()
