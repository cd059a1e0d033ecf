"""Run the benchmarks one after the other, each in a process of its own, and say which ended well.

usage: python -m benches [--gpu] [NAME ...]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
# Needs a real SLURM cluster; `python -m benches slurm_preempt` asks for it by name.
BY_NAME_ONLY = {"slurm_preempt"}


def names(gpu: bool) -> list[str]:
    """Return the benches of one kind, sorted: files that begin with `gpu` need a CUDA device."""
    every = sorted(path.stem for path in HERE.glob("*.py") if not path.stem.startswith("_"))
    return [name for name in every if name.startswith("gpu") == gpu and name not in BY_NAME_ONLY]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benches", description="Run the benchmarks.")
    parser.add_argument("--gpu", action="store_true", help="the benches that need a CUDA device")
    parser.add_argument("names", nargs="*", help="only these")
    options = parser.parse_args()
    chosen = options.names or names(options.gpu)
    unknown = [name for name in chosen if not (HERE / f"{name}.py").is_file()]
    if unknown:
        print(f"benches: no bench {', '.join(unknown)}; there are {', '.join(names(options.gpu))}", file=sys.stderr)
        return 2
    failed = []
    for name in chosen:
        print(f"\n=== {name}", flush=True)
        start = time.monotonic()
        code = subprocess.run([sys.executable, "-m", f"benches.{name}"], cwd=HERE.parent, check=False).returncode
        print(f"=== {name}: {'done' if code == 0 else f'exit code {code}'} after {time.monotonic() - start:.0f} s")
        failed += [name] * (code != 0)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
