"""The sweep as its user meets it: cells, progress, time left, failures. Free of torch and ray.

The Ray driver is a child process (`cxrdist.sweep`), started and followed by `cxrdist.sweep.watchdog`: when it or Ray's
head dies, it is started again while cells keep finishing. Ctrl-C leaves a folder from which the same command continues.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import sys
from pathlib import Path

from cxrdist.core.initialisation import describe
from cxrdist.errors import InputError
from cxrdist.finetune.config import run_settings
from cxrdist.finetune.identity import trial_shards
from cxrdist.sweep import cost, search, slurm_array
from cxrdist.sweep.config import SweepConfig
from cxrdist.sweep.folder import SweepCell, SweepFolder
from cxrdist.sweep.grid import expand
from cxrdist.sweep.watchdog import Watchdog
from results import atomic
from results.tracking.backends import names as check_trackers
from results.tracking.beside import tracked
from shards.locks import locked
from shards.processes import cores


def run(config: SweepConfig) -> int:
    """Run what is missing of a sweep; 0 when every cell is done, 1 when some failed, 130 after Ctrl-C.

    Raises:
        InputError: a spec that cannot be, a folder that holds something else, or another sweep at work in it.
        FailedError: Ray does not start.
    """
    check_trackers(config.track)
    if config.executor == "slurm-array":
        slurm_array.small_profile(config)
    cells = expand(config)
    ledger = SweepFolder(Path(config.out))
    if config.dry_run:
        _list(config, cells, ledger)
        return 0
    ledger.claim()
    busy = InputError(f"another sweep is running in {ledger.out}; wait for it or stop it")
    with locked(ledger.out / "sweep.lock", 0, busy):
        missing = ledger.missing(cells)
        for cell in missing:  # attempts are counted within one run of the sweep: the user may have fixed the cause
            ledger.forgive(cell.signature)
        if config.executor == "ray":
            slurm_array.refuse_active(ledger.out)
        refuse_other_content(cells, ledger)
        _write_plan(config, cells, ledger)
        if missing:
            with contextlib.suppress(FileNotFoundError):
                (ledger.out / "done.json").unlink()
            with tracked(ledger.out, config.track, lambda: not ledger.missing(cells)):
                _driver(config)(config, cells, missing, ledger).run()
        return _close(config, cells, ledger)


def _driver(config: SweepConfig) -> type[Watchdog]:
    return slurm_array.ArrayDriver if config.executor == "slurm-array" else Watchdog


def refuse_other_content(cells: list[SweepCell], ledger: SweepFolder) -> None:
    """A sweep that goes on (a requeued job does by itself) must find the data and the encoders it began with.

    Raises:
        InputError: at a place that its plan names lies something else, naming both hashes.
    """
    try:
        earlier = json.loads(ledger.spec.read_text())["cells"]
    except (OSError, ValueError, KeyError, TypeError):
        return
    known: dict[str, str] = {}
    for cell in earlier:
        known |= cell.get("shards", {})
        if cell.get("init", {}).get("file"):
            known[cell["init"]["file"]] = cell["init"]["sha256"]
    found: dict[str, str | None] = {}
    for cell in cells:
        found |= trial_shards(cell.config)
        start = describe(cell.config.init)
        if start.file is not None:
            found[str(start.file)] = start.sha256
    for place, content in found.items():
        if known.get(place, content) != content:
            raise InputError(
                f"{place} is not what the sweep in {ledger.out} began with: hash {content}, not {known[place]}; put"
                " that one back, or put the new one at another path, or choose another --out"
            )


def _write_plan(config: SweepConfig, cells: list[SweepCell], ledger: SweepFolder) -> None:
    plan = {
        "format_version": 1,
        "trials": config.trials,
        "cpus_per_trial": config.cpus_per_trial,
        "gpus_per_trial": config.gpus_per_trial,
        "device": config.device,
        "retries": config.retries,
        "search": dataclasses.asdict(config.search),
        "cells": [
            {
                "signature": cell.signature,
                "name": cell.name,
                "values": cell.values,
                "work": cost.work(cell),
                "config": run_settings(cell.config),
                "shards": trial_shards(cell.config),
                "init": describe(cell.config.init).facts(),
            }
            for cell in cells
        ],
    }
    atomic.write_text(ledger.spec, json.dumps(plan, indent=1))


def _list(config: SweepConfig, cells: list[SweepCell], ledger: SweepFolder) -> None:
    finished = [cell for cell in cells if cell.run.is_done]
    missing = [cell for cell in cells if not cell.run.is_done]
    gpu = config.device == "cuda" or bool(config.gpus_per_trial)
    for cell in cells:
        state = "done" if cell.run.is_done else "to do"
        print(f"{cell.signature}  {state:<6}  {cell.name}")
    guess = cost.estimate(missing, finished, gpu, config.cpus_per_trial)
    basis = (
        "at the rate of the finished cells" if guess.measured else "a guess from the arithmetic, until a cell is done"
    )
    lanes = config.trials or (1 if gpu else max(1, cores() // config.cpus_per_trial))
    print(
        f"{len(cells)} cells, {len(finished)} done, {len(missing)} to do: {guess.images:,.0f} image passes,"
        f" about {cost.spoken(guess.seconds)} of trials, {cost.spoken(guess.seconds / lanes)} with {lanes} at a time"
        f" ({basis})"
    )


def _close(config: SweepConfig, cells: list[SweepCell], ledger: SweepFolder) -> int:
    """Report; write done.json of the sweep when every cell is done."""
    missing = ledger.missing(cells)
    if config.search.method != "none":
        _search_table(config, cells, ledger)
    if not missing:
        atomic.write_text(ledger.out / "done.json", json.dumps({"format_version": 1, "cells": len(cells)}) + "\n")
        print(f"{ledger.out}: all {len(cells)} cells are done")
        return 0
    for cell in missing:
        attempts = ledger.attempts(cell.signature)
        print(f"FAILED {cell.name} ({cell.signature}), {len(attempts)} attempts", file=sys.stderr)
        for line in ledger.last_lines(cell.signature):
            print(f"    {line}", file=sys.stderr)
    kept = len(cells) - len(missing)
    print(
        f"cxrdist: {len(missing)} of {len(cells)} cells failed, {kept} are done and kept; logs are in {ledger.logs};"
        " the same command tries them again",
        file=sys.stderr,
    )
    return 1


def _search_table(config: SweepConfig, cells: list[SweepCell], ledger: SweepFolder) -> None:
    """All trials of a search as CSV, the chosen ones printed; test numbers are not in it."""
    import csv
    import io

    from cxrdist.finetune.parse import flat

    rows = search.trials(cells, flat(config.search.space))
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    atomic.write_text(ledger.out / "trials.csv", text.getvalue())
    print(f"all {len(rows)} trials: {ledger.out / 'trials.csv'} (chosen on val)")
    for row in rows:
        if row["chosen"]:
            named = " ".join(f"{key}={row[key]}" for key in list(row)[: list(row).index("signature")])
            print(f"chosen: {named}  val AUROC {row['val_auroc']:.4f}  cells/{row['signature']}")
