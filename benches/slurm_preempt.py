"""What interruptions cost on a real cluster: `python -m benches.slurm_preempt`, prints Markdown.

Runs the drills (see `cxrdist drill --help`) on the cluster that SLURM_CONF names; where it names none, on the tests'
own cluster of two nodes, which it then brings up and down (root, Debian or Ubuntu).
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from slurm.profiles import Profile

TITLES = {
    "preempt": "The signal of a preemption or time limit",
    "resume": "`scontrol requeue`",
    "kill": "All processes killed",
}
TIMES = {
    "save_s": "signal to checkpoint (the rest of the step, the ranks' agreement, the save)",
    "queue_s": "signal to the next start of the launcher (also: the ranks' end, requeue, SLURM's own wait)",
    "first_step_s": "start of the launcher to the next new step (import of torch, rendezvous, first batch)",
}


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure preemption, kill and requeue on a cluster.")
    parser.add_argument("--times", type=int, default=20, help="preemptions in one run")
    parser.add_argument("--steps", type=int, default=88, help="steps of that run")
    parser.add_argument("--nodes", type=int, default=2)
    parser.add_argument("--profile", default="local")
    parser.add_argument("--out", default=None, help="folder shared by the nodes (default: a temporary one)")
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        if "SLURM_CONF" not in os.environ:
            sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "slurm"))
            stack.enter_context(importlib.import_module("cluster").session())
        out = options.out or stack.enter_context(tempfile.TemporaryDirectory(prefix="cxrdist-drill-"))
        return _measure(options, out)


def _measure(options: argparse.Namespace, out: str) -> int:
    from jobs import drill
    from slurm import profiles

    _describe(options, profiles.load(options.profile))
    code = 0
    plan: list[tuple[drill.Kind, int, int]] = [
        ("preempt", options.times, options.steps), ("resume", 1, 30), ("kill", 1, 30)
    ]  # fmt: skip
    for kind, times, steps in plan:
        config = drill.Config(
            kind=kind, profile=options.profile, nodes=options.nodes, out=out, times=times, steps=steps, alone=True
        )  # fmt: skip
        load = os.getloadavg()[0]
        facts = drill.measure(config)
        print(f"## {TITLES[kind]}\n\n{drill.report(facts)}\n")
        for name, words in TIMES.items() if times > 1 else ():
            values = [one[name] for one in facts["interruptions"] if one[name] is not None]
            low, high = min(values), max(values)
            print(f"- {words}: median {statistics.median(values):.2f} s ({low:.2f} to {high:.2f}), n = {len(values)}")
        print(f"- load of the machine (1 minute): {load:.1f} before, {os.getloadavg()[0]:.1f} after\n")
        code |= int(facts["lost"] > 0 or not facts["same_samples"] or not facts["same_weights"])
        sys.stdout.flush()
    return code


def _describe(options: argparse.Namespace, profile: Profile) -> None:
    cpu = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), "")
    version = subprocess.check_output(["sinfo", "--version"], text=True).strip()
    print("# Interruptions on a real SLURM cluster\n")
    print(f"- Date: {time.strftime('%Y-%m-%d', time.gmtime())}")
    print("- Command: `" + " ".join(["python -m benches.slurm_preempt", *sys.argv[1:]]) + "`")
    print(
        f"- {version}, {options.nodes} nodes of {profile.ranks} ranks, {profile.cpus_per_rank} cores a rank, ", end=""
    )
    print(f"{profile.gpus} GPUs a node; stop signal {profile.signal_delay_s} s before a limit of {profile.time}")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    print(f"- This machine: {cpu or platform.machine()}, {os.cpu_count()} cores, {memory:.0f} GiB")
    print("- The run: `cxrdist pretrain`, resnet10t at 32 pixels, float32, checkpoints only when asked to stop (kill: ")
    print("  every 5 steps). Nothing else of this bench runs meanwhile.\n", flush=True)


if __name__ == "__main__":
    sys.exit(main())
