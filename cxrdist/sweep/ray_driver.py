"""The Ray Tune executor of a sweep; the only file that imports Ray.

    python -m cxrdist.sweep OUT

runs what OUT/sweep.json lists and is not done. It is started and watched by `cxrdist.sweep.watchdog`, which reads the
events (one JSON object a line) that this process writes to its standard output; all else goes to a log. Ray's own
state is thrown away: what is done is what has a done.json.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from cxrdist.sweep import worker
from cxrdist.sweep.folder import SweepFolder
from cxrdist.sweep.pending import tasks, unfinished
from results.run import Run
from shards.processes import cores

for _name, _value in {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "3600",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",
    "RAY_DEDUP_LOGS": "0",
    # Seconds that Ray's processes wait for a lost head; one that this sweep started does not come back on its own.
    **({} if os.environ.get("RAY_ADDRESS") else {"RAY_gcs_rpc_server_reconnect_timeout_s": "15"}),
}.items():
    os.environ.setdefault(_name, _value)

import ray  # noqa: E402
from ray import tune  # noqa: E402
from ray.tune.schedulers import ASHAScheduler  # noqa: E402

HEARTBEAT_SECONDS = 5.0
OBJECT_STORE_BYTES = 100_000_000
"""Trials exchange nothing but file names, so the shared-memory store can be as small as Ray allows."""

NO_NODE = 70
"""Exit code when all nodes are gone."""

Event = Callable[..., None]


class CellTask(tune.Trainable):
    """Some cells, one after the other; the worker process is reused for the next task, so torch is imported once."""

    def setup(self, config: dict[str, Any]) -> None:
        """Take a task: `out`, `cells`, and `stepwise` for one validation a step."""
        self.task = config
        self.validations: Iterator[float | None] | None = None

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take the next task."""
        self.cleanup()
        self.setup(new_config)
        return True

    def step(self) -> dict[str, Any]:
        """Run the cells; or up to the next validation."""
        if not self.task["stepwise"]:
            good = [worker.run(self.task["out"], cell) for cell in self.task["cells"]]
            return {"failed": good.count(False), "val_auroc": 0.0, "done": True}
        if self.validations is None:
            self.validations = worker.validations(self.task["out"], self.task["cells"][0])
        try:
            value = next(self.validations)
        except StopIteration:
            self.validations = None
            return {"val_auroc": self.value, "done": True}
        except Exception:
            self.validations = None
            return {"val_auroc": -1.0, "failed": 1, "done": True}
        self.value = -1.0 if value is None else value
        return {"val_auroc": self.value, "done": False}

    def cleanup(self) -> None:
        """A trial that the scheduler gave up is tested with its best weights, so that its run is complete."""
        if self.validations is not None:
            self.validations.close()  # pyright: ignore[reportAttributeAccessIssue]
            self.validations = None

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing: a run keeps its own checkpoints."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Nothing: see save_checkpoint."""


class SweepCallback(tune.Callback):
    """Tells the supervisor which cells run, and records cells whose worker died."""

    def __init__(self, tell: Event, ledger: SweepFolder):
        self.tell, self.ledger = tell, ledger
        self.before: dict[str, int] = {}

    def __reduce__(self) -> Any:
        """Tune saves its callbacks with its state; a pipe cannot be saved, and nothing reads that state again."""
        return tune.Callback, ()

    def _names(self, trial: Any) -> list[str]:
        return [cell["signature"] for cell in trial.config["cells"]]

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A worker took the cells."""
        self.before |= {name: len(self.ledger.attempts(name)) for name in self._names(trial)}
        self.tell("running", cells=self._names(trial))

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """The worker gave them back."""
        self.tell("ended", cells=self._names(trial))

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """The worker died at the first of its cells that is neither done nor reported as failed."""
        for name in self._names(trial):
            reported = len(self.ledger.attempts(name)) > self.before.get(name, 0)
            if not reported and not Run(self.ledger.cell_folder(name)).is_done:
                self.ledger.fail(name, "killed", "the worker process died (out of memory, or killed)", worker.now())
                break
        self.tell("ended", cells=self._names(trial))


def start_ray(plan: dict[str, Any], temporary: str) -> dict[str, float]:
    """Connect to the cluster of RAY_ADDRESS, or start one on this machine; returns its resources."""
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    if os.environ.get("RAY_ADDRESS"):
        ray.init(address=os.environ["RAY_ADDRESS"], **quiet)
    else:
        lanes = plan["trials"]
        ray.init(
            num_cpus=lanes * plan["cpus_per_trial"] if lanes else max(cores(), plan["cpus_per_trial"]),
            num_gpus=0 if plan["device"] == "cpu" else None,
            include_dashboard=False,
            object_store_memory=OBJECT_STORE_BYTES,
            _temp_dir=temporary,
            **quiet,
        )
    return {key: float(value) for key, value in ray.cluster_resources().items()}


def lanes_of(plan: dict[str, Any], resources: dict[str, float]) -> tuple[int, float]:
    """Trials at a time, and the share of a GPU that each takes."""
    gpus = resources.get("GPU", 0.0) if plan["device"] != "cpu" else 0.0
    share = plan["gpus_per_trial"]
    share = (1.0 if gpus else 0.0) if share is None else share
    fit = int(resources.get("CPU", 1) // plan["cpus_per_trial"])
    if share:
        fit = min(fit, int(gpus // share) if share > 1 else int(gpus) * int(1 / share))
    return max(1, min(fit, plan["trials"] or fit)), share


def run_round(
    plan: dict[str, Any], todo: list[dict[str, Any]], lanes: int, share: float, tell: Event, ledger: SweepFolder
) -> None:
    """Give every cell in `todo` to Ray Tune once."""
    asha = plan["search"]["method"] == "asha"
    groups = [[cell] for cell in todo] if asha else tasks(todo, lanes)
    storage = ledger.out / ".tune"
    scheduler = None
    if asha:
        search = plan["search"]
        scheduler = ASHAScheduler(
            time_attr="training_iteration",
            metric="val_auroc",
            mode="max",
            max_t=10_000,
            grace_period=search["grace"],
            reduction_factor=search["reduction"],
        )
    tuner = tune.Tuner(
        tune.with_resources(CellTask, {"cpu": plan["cpus_per_trial"], "gpu": share}),
        param_space={
            "out": str(ledger.out),
            "stepwise": asha,
            "cells": tune.grid_search(groups),
        },
        tune_config=tune.TuneConfig(reuse_actors=True, max_concurrent_trials=lanes, scheduler=scheduler),
        run_config=tune.RunConfig(
            name="round",
            storage_path=str(storage),
            verbose=0,
            callbacks=[SweepCallback(tell, ledger)],
            failure_config=tune.FailureConfig(max_failures=0),
        ),
    )
    try:
        tuner.fit()
    finally:
        shutil.rmtree(storage, ignore_errors=True)


def main(out: str) -> int:
    """Run the sweep of a folder until every cell is done or has failed for good."""
    from slurm.signals import die_with_parent

    signal.signal(signal.SIGTERM, _stop)
    die_with_parent(signal.SIGTERM)
    ledger = SweepFolder(Path(out))
    events = os.fdopen(os.dup(1), "w", buffering=1)
    log = os.open(ledger.logs / "ray.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(log, 1)
    os.dup2(log, 2)
    guard = threading.Lock()

    def tell(event: str, **values: Any) -> None:
        with guard:
            events.write(json.dumps({"event": event, **values}) + "\n")

    plan = json.loads(ledger.spec.read_text())
    left = ledger.logs / "ray-folder"
    _remove_left(left)
    temporary = tempfile.mkdtemp(prefix="cxr", dir=_short_folder())
    left.write_text(temporary)
    tell("temporary", path=temporary)
    try:
        resources = start_ray(plan, temporary)
        lanes, share = lanes_of(plan, resources)
        tell("started", lanes=lanes, gpus_per_trial=share, nodes=len(ray.nodes()))
        threading.Thread(target=_beat, args=(tell,), daemon=True).start()
        while todo := unfinished(plan, ledger):
            run_round(plan, todo, lanes, share, tell, ledger)
        tell("finished")
    finally:
        ray.shutdown()
        shutil.rmtree(temporary, ignore_errors=True)
        left.unlink(missing_ok=True)
    return 0


def _short_folder() -> str:
    """Where Ray's sockets fit: their path may have 107 characters."""
    folder = tempfile.gettempdir()
    return folder if len(folder) < 30 else "/tmp"


def _remove_left(note: Path) -> None:
    """Remove the Ray folder of a driver that was killed before it could; only one sweep works in a folder."""
    with contextlib.suppress(OSError, ValueError):
        folder = Path(note.read_text())
        if folder.parent == Path(_short_folder()) and folder.name.startswith("cxr"):
            shutil.rmtree(folder, ignore_errors=True)


def _beat(tell: Event) -> None:
    """Tell the supervisor that Ray still answers; silence makes it start again.

    Without a node nothing can run any more, and Tune would wait for one for ever: the driver ends, so that it is
    started again.
    """
    while True:
        time.sleep(HEARTBEAT_SECONDS)
        try:
            alive = sum(bool(node["Alive"]) for node in ray.nodes())
        except Exception as error:  # Ray is being closed, or its head is gone; then silence says it
            print(f"no answer from Ray: {type(error).__name__}", file=sys.stderr)
            return
        if not alive:
            print("no Ray node is alive any more", file=sys.stderr, flush=True)
            os._exit(NO_NODE)
        tell("alive")


def _stop(number: int, frame: Any) -> None:
    del frame
    signal.signal(number, signal.SIG_IGN)  # asked again, it still has Ray to shut down
    raise SystemExit(143)
