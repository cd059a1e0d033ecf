"""The cells of a sweep as a SLURM job array of small jobs, with the same folder, resuming and retries as under Ray.

    OUT/array/             the submission folder: batch script, logs, notes of the jobs
    OUT/array/parts.json   the cells of each part of the array that is queued

A part is a job of one GPU (or of cores alone) that trains its cells one after another: linear cells on the same
features share a part. A part that is preempted saves, goes back to the queue alone and goes on. What failed is
queued again in the next round. The truth is the folders: whichever executor runs next finds the same cells missing.
"""

from __future__ import annotations

import dataclasses
import json
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cxrdist.errors import FailedError, InputError
from cxrdist.sweep.config import SweepConfig
from cxrdist.sweep.folder import SweepCell, SweepFolder
from cxrdist.sweep.pending import tasks, unfinished
from cxrdist.sweep.watchdog import RESTARTS, Watchdog
from results import atomic
from results.run import Run
from slurm import checks, client, jobs_file, profiles, submit, unnoted
from slurm.errors import FailedError as SlurmError
from slurm.profiles import Profile

POLL_S = 5.0
"""Seconds between two looks at the folders and the queue."""


def parts_file(out: Path) -> Path:
    """The cells of each part."""
    return out / "array" / "parts.json"


def active_job(out: Path) -> str | None:
    """The number of this sweep's array in the queue; None when there is none.

    Raises:
        FailedError: SLURM is absent or does not answer.
    """
    unnoted.adopt(out / "array")  # sbatch's answer may have been lost
    jobs = jobs_file.jobs(out / "array")
    if not jobs:
        return None
    name = jobs_file.name_of(jobs[-1])
    return name if client.job(name).active else None


def refuse_active(out: Path) -> None:
    """Refuse to train cells by other means while an array of the same sweep is in the queue.

    Raises:
        InputError: naming the job.
    """
    if (out / "array" / "jobs.json").is_file() and (job := active_job(out)) is not None:
        raise InputError(
            f"job {job} of the sweep in {out} is still in the queue; go on with --executor slurm-array, or"
            f" scancel {job}"
        )


def small_profile(config: SweepConfig) -> Profile:
    """The profile as one cell's job takes it: not all memory of a node unless that is asked for.

    Raises:
        InputError: no such profile, or a search that compares trials while they run.
    """
    if config.search.method == "asha":
        raise InputError(
            "search.method asha compares trials while they run, which an array cannot; take --executor ray"
        )
    profile = profiles.load(config.array.profile)
    wanted = config.array.mem or (None if profile.mem == "0" else profile.mem)
    return dataclasses.replace(profile, mem=wanted)


class ArrayDriver(Watchdog):
    """Queues what is missing as an array, follows it, and queues again what failed."""

    def __init__(self, config: SweepConfig, cells: list[SweepCell], missing: list[SweepCell], ledger: SweepFolder):
        super().__init__(config, cells, missing, ledger)
        self.out = ledger.out.resolve()
        self.profile = small_profile(config)

    def run(self) -> None:
        """Until nothing is left to try."""
        barren = 0
        with self.show:
            while self._left():
                before = self._standing()
                job = active_job(self.out) or self._queue()
                self._follow_array(job)
                _refuse_cancelled(job)
                self._collect(list(self.missing))
                self._note_silent_deaths()
                self._collect(list(self.missing))
                barren = 0 if self._standing() != before else barren + 1
                if barren >= RESTARTS:
                    raise FailedError(
                        f"the array ended {RESTARTS} times without a cell done or failed; see {self.out}/array"
                    )

    def _standing(self) -> tuple[int, int]:
        return len(self.missing), sum(len(self.ledger.attempts(name)) for name in self.missing)

    def _queue(self) -> str:
        """Queue the cells that are left; returns the array's number."""
        plan = json.loads(self.ledger.spec.read_text())
        cells = unfinished(plan, self.ledger)
        parts = _at_most(client.max_array_size(), tasks(cells, self.config.array.throttle or len(cells)))
        folder = parts_file(self.out).parent
        request = submit.Request(
            name=f"sweep-{self.out.name}"[:60],
            task=submit.task_for(
                self.profile,
                kind="command",
                words=("cxrdist.sweep.array_part", str(self.out), "{part}"),
                folder=str(folder),
                ranks_per_node=1,
                cpus_per_rank=max(self.profile.cpus_per_rank, self.config.cpus_per_trial),
                gpus_per_node=min(1, self.profile.gpus),
            ),
            profile=self.profile,
            array=len(parts),
            throttle=self.config.array.throttle,
        )
        checks.check(request)
        folder.mkdir(mode=0o700, exist_ok=True)
        submit.refuse_queued(folder)  # an array that may still appear reads its cells from the file that is written now
        atomic.write_text(parts_file(self.out), json.dumps([[cell["signature"] for cell in part] for part in parts]))
        job = submit.submit(request)
        most = f", at most {self.config.array.throttle} at a time" if self.config.array.throttle else ""
        self.show.line(f"queued as array {job}: {len(cells)} cells in {len(parts)} jobs{most}")
        return job

    def _follow_array(self, job: str) -> None:
        """Show cells as they become done, until no part of the array is in the queue."""
        quiet = True
        try:
            while True:
                self._collect(list(self.missing))
                begun = sum(cell.run.metrics_log.is_file() for cell in self.missing.values())
                self.show.state(begun, len(self.failed), self._time_left())
                try:
                    if not client.job(job).active:
                        return
                    quiet = True
                except SlurmError as error:  # a controller that is down for a while ends no sweep
                    if quiet:
                        self.show.line(f"SLURM does not answer ({error}); cells go on, it is asked again")
                    quiet = False
                time.sleep(POLL_S)
        except KeyboardInterrupt:
            self.show.line(f"array {job} goes on in the queue; the same command follows it, scancel {job} ends it")
            raise

    def _note_silent_deaths(self) -> None:
        """An attempt for the cell at which a part ended without a word (killed, out of memory), so that tries end."""
        parts: list[list[str]] = json.loads(parts_file(self.out).read_text())
        written = parts_file(self.out).stat().st_mtime
        for part in parts:
            first = next((name for name in part if name in self.missing), None)
            if first is None or any(_when(one) >= written for name in part for one in self.ledger.attempts(name)):
                continue
            self.ledger.fail(
                first,
                "failed",
                f"its job ended without saying why; see {self.out}/array",
                datetime.now(UTC).isoformat(),
            )


def _at_most(number: int, parts: list[list[dict[str, Any]]]) -> list[list[dict[str, Any]]]:
    """Parts put together until there are no more than `number`, the largest (which come first) not with each other."""
    return [sum(parts[start::number], []) for start in range(min(number, len(parts)))]


def _refuse_cancelled(job: str) -> None:
    """What a person took from the queue must not be queued again.

    Raises:
        FailedError: the array was cancelled, or a part of it.
    """
    states = {info.state for info in [*client.parts(job), client.job(job)]}
    if any(state.startswith("CANCELLED") for state in states):
        raise FailedError(f"array {job} was cancelled; the same command queues what is missing again")


def _when(attempt: dict[str, Any]) -> float:
    """When an attempt failed, rounded up, since it is noted in whole seconds."""
    return datetime.fromisoformat(attempt["when"]).timestamp() + 1.0


def is_done(ledger: SweepFolder, name: str) -> bool:
    """Whether a cell is done."""
    return Run(ledger.cell_folder(name)).is_done
