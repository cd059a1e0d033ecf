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
from pathlib import Path


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure preemption, kill and requeue on a cluster.")
    parser.add_argument("--times", type=int, default=20, help="preemptions in one run")
    parser.add_argument("--steps", type=int, default=126, help="steps of that run")
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

    cpu = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), "")
    load = os.getloadavg()[1]
    version = subprocess.check_output(["sinfo", "--version"], text=True).strip()
    print(f"{version}, {options.nodes} nodes of profile {options.profile}; {cpu or platform.machine()}, ", end="")
    print(f"{os.cpu_count()} cores, load {load:.1f} (5 minutes)\n")
    code = 0
    plan: list[tuple[drill.Kind, int, int]] = [
        ("preempt", options.times, options.steps), ("kill", 1, 30), ("resume", 1, 30)
    ]  # fmt: skip
    for kind, times, steps in plan:
        config = drill.Config(
            kind=kind, profile=options.profile, nodes=options.nodes, out=out, times=times, steps=steps
        )  # fmt: skip
        facts = drill.measure(config)
        print(f"### {kind}\n\n{drill.report(facts)}\n")
        if times > 1:
            for name, words in (
                ("save_s", "signal to checkpoint"),
                ("first_step_s", "start of the launcher to new step"),
            ):
                values = [one[name] for one in facts["interruptions"] if one[name] is not None]
                low, high = min(values), max(values)
                print(
                    f"{words}: median {statistics.median(values):.2f} s ({low:.2f} to {high:.2f}), n = {len(values)}\n"
                )
        code |= int(facts["lost"] > 0 or not facts["same_weights"])
        sys.stdout.flush()
    return code


if __name__ == "__main__":
    sys.exit(main())
