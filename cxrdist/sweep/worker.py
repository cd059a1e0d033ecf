"""What a Ray worker does with a cell: make or take up its run folder, train it, and keep what it says in a log.

Nothing here knows of Ray; a test or a plain loop can call it as well.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import sys
import traceback
import warnings
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cxrdist.core.shard_sets import datasets
from cxrdist.errors import FailedError
from cxrdist.finetune.parse import from_plain
from cxrdist.sweep.folder import SweepFolder
from results.run import Run
from shards.locks import locked
from slurm.importing import large_modules

BUSY_SECONDS = 60
"""A cell that another process still holds is waited for this long: its worker may just be dying."""


def training() -> tuple[Any, type[Exception]]:
    """The module that trains a cell, and what it raises when it was stopped; imported at first use, with torch."""
    with large_modules():
        from cxrdist.finetune import loop, trial
    return trial, loop.Stopped


def validations(out: str, cell: dict[str, Any], stop: Any = None) -> Iterator[float | None]:
    """Run a cell, yielding the val AUROC at every validation; closing the iterator ends the training there.

    Args:
        out: the sweep's folder.
        cell: `signature` and `config` (plain) as sweep.json lists them.
        stop: a StopRequest, looked at after every step; None = never stop.

    Raises:
        Stopped: `stop` was requested; a checkpoint was written, and nothing has failed.
        Whatever the trial raises, after it was recorded as a failed attempt.
    """
    trial, Stopped = training()

    ledger, name = SweepFolder(Path(out)), str(cell["signature"])
    with _logged(ledger.log(name)):
        try:
            config = from_plain(cell["config"], f"cell {name}")
            # Two workers, one of them forgotten by a dead sweep, must never write to one folder.
            busy = FailedError(f"cell {name} is being trained by another process; is another sweep running?")
            with locked(ledger.cell_folder(name).parent / f".{name}.lock", BUSY_SECONDS, busy):
                run = Run.create(
                    config.out,
                    job="finetune",
                    config=cell["config"],
                    signature=name,
                    shards=cell["shards"],
                    init=cell["init"],
                    datasets=datasets(cell["shards"], Path(file) if (file := cell["init"].get("file")) else None),
                )
                for found in trial.validations(config, run, stop):
                    yield found.auroc
            ledger.forgive(name)
        except GeneratorExit:
            ledger.forgive(name)
            raise
        except Stopped:
            raise
        except Exception as error:
            kind = "input" if getattr(error, "exit_code", None) == 2 else "failed"
            text = " ".join(str(error).split()) or type(error).__name__
            if kind == "input":  # the message says what to fix; a traceback would not help
                print(text, file=sys.stderr, flush=True)
            else:
                traceback.print_exc()
            ledger.fail(name, kind, f"{type(error).__name__}: {text}", now())
            raise


def run(out: str, cell: dict[str, Any], stop: Any = None) -> bool:
    """Run a cell to its end; False when it failed, which is recorded; `stop` as in `validations`."""
    _, Stopped = training()
    try:
        for _ in validations(out, cell, stop):
            pass
    except Stopped:
        raise
    except Exception:
        return False
    return True


def now(precision: str = "seconds") -> str:
    """The present moment in UTC."""
    return datetime.now(UTC).isoformat(timespec=precision)


@contextlib.contextmanager
def _logged(path: Path) -> Iterator[None]:
    """Send what the trial prints, warns and logs to its own file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a", buffering=1, encoding="utf-8") as file:
        devices = os.environ.get("CUDA_VISIBLE_DEVICES")
        where = f"pid {os.getpid()} on {socket.gethostname()}" + (f" with GPU {devices}" if devices else "")
        print(f"--- {now('milliseconds')} {where}", file=file)
        handler = logging.StreamHandler(file)
        logger = logging.getLogger("cxrdist")
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        logger.propagate = False
        old = sys.stderr, sys.stdout
        sys.stderr = sys.stdout = file
        try:
            with warnings.catch_warnings():
                yield
        finally:
            sys.stderr, sys.stdout = old
            logger.removeHandler(handler)
            print(f"--- {now('milliseconds')} end", file=file)
