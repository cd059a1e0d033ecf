"""`cxrdist pretrain`: make or find the run's folder, start its ranks, report how it ended."""

from __future__ import annotations

import sys
from pathlib import Path

from cxrdist.pretrain.config import PretrainConfig
from cxrdist.pretrain.run_folder import create_run

HELP = "pretrain an encoder with SimCLR or VICReg on one or many GPUs"
Config = PretrainConfig
POSITIONALS: tuple[str, ...] = ()


def run(config: PretrainConfig) -> int:
    """Train until done (0), failed (the worker's code) or stopped by a signal (130)."""
    from slurm.launch import local

    new = not Path(config.out).exists()
    run = create_run(config)
    if run.is_done:
        print(f"{run.path} is done: {run.encoder}")
        return 0
    with run.alone():
        code = local("cxrdist.pretrain", [str(run.path)], nproc=config.nproc, max_restarts=config.max_restarts)
        if code and new and not run.has_begun:
            run.discard()  # no step was taken; once the cause is fixed, this name must be free
            what = "" if run.info.exists() else f"; {run.path} was removed"
            print(f"cxrdist: pretraining failed before its first step (exit code {code}){what}", file=sys.stderr)
            return code
    if code:
        print(f"cxrdist: pretraining failed (exit code {code}); the same command goes on from the last checkpoint",
              file=sys.stderr)  # fmt: skip
        return code
    if not run.is_done:
        print(f"cxrdist: {run.path} was stopped and saved; the same command goes on", file=sys.stderr)
        return 130
    print(f"{run.path} is done: {run.encoder}")
    return 0
