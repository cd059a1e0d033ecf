"""What a tracker is told of a run: its name, its configuration, numbers by step, numbers at the end.

Two trackers, one class each with the same four methods. Their addresses and accounts are their own settings
(MLFLOW_TRACKING_URI, MLFLOW_EXPERIMENT_NAME, WANDB_MODE, WANDB_PROJECT ...). Nothing else is sent: no image, no key
of a sample, no patient, and of what the clients report by themselves (the machine, its user, installed packages, how
they are used) nothing either, as far as they let themselves be asked.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from results.errors import InputError

PROJECT = "cxrdist"
"""Experiment or project, where the tracker's own settings name none."""

MODULES = {"mlflow": "mlflow", "wandb": "wandb"}
"""Tracker -> the module that must be installed; the extras of this package have the same names."""

Numbers = Mapping[str, float]

QUIET = {"MLFLOW_DISABLE_TELEMETRY": "true", "WANDB_ERROR_REPORTING": "false"}
"""Variables that keep the clients from reporting their own use and errors; what a user has set stays."""


def without_secrets(text: str) -> str:
    """A text without what may give access: user and password of a URL, and what follows its question mark."""
    return re.sub(r"(://)[^/@\s]*@", r"\1", re.sub(r"(://[^\s?]*)\?[^\s'\")]*", r"\1", text))


def quieten() -> None:
    """Set `QUIET` for this process, before a client is imported."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)


def names(text: str | None) -> tuple[str, ...]:
    """`wandb,mlflow` as ("wandb", "mlflow"), checked.

    Raises:
        InputError: an unknown tracker, or one that is not installed.
    """
    found = tuple(dict.fromkeys(word.strip() for word in (text or "").split(",") if word.strip()))
    for name in found:
        if name not in MODULES:
            raise InputError(f"--track {text}: {name!r} is no tracker; there are {', '.join(MODULES)}")
        if importlib.util.find_spec(MODULES[name]) is None:
            raise InputError(f"--track {name}: {name} is not installed; pip install 'cxrdist[{name}]', or leave it out")
    return found


class Tracker(Protocol):
    """One run in one tracker."""

    id: str
    """The tracker's own name of the run; given again, it is continued."""

    def log(self, rows: Sequence[tuple[int, Numbers]]) -> None:
        """Send numbers by step."""
        ...

    def finish(self, numbers: Numbers) -> None:
        """Send the numbers at the end, and call the run finished."""
        ...

    def close(self) -> None:
        """Let go of the run, which may go on later."""
        ...


class MLflow:
    """A run of an MLflow tracking server, file store or database."""

    def __init__(self, name: str, config: Mapping[str, Any], tags: Mapping[str, str], run_id: str | None, place: Path):
        """Begin or continue a run; `place` is not used."""
        from mlflow.tracking import MlflowClient

        self.client = MlflowClient()
        if run_id is None:
            wanted = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
            held = self.client.get_experiment_by_name(wanted)
            experiment = held.experiment_id if held else self.client.create_experiment(wanted)
            run_id = str(self.client.create_run(experiment, run_name=name, tags=dict(tags)).info.run_id)
            try:
                self._describe(run_id, config)
            except Exception:  # it is tried again, and must not leave a run each time
                with contextlib.suppress(Exception):
                    self.client.delete_run(run_id)
                raise
        self.id = str(run_id)

    def _describe(self, run_id: str, config: Mapping[str, Any]) -> None:
        from mlflow.entities import Param

        params = [Param(key, value) for key, value in {_name(key): str(config[key])[:500] for key in config}.items()]
        for start in range(0, len(params), 100):
            self.client.log_batch(run_id, params=params[start : start + 100])

    def log(self, rows: Sequence[tuple[int, Numbers]]) -> None:
        """Send numbers by step."""
        from mlflow.entities import Metric

        now = int(1000 * time.time())
        metrics = [Metric(_name(key), value, now, step) for step, held in rows for key, value in held.items()]
        for start in range(0, len(metrics), 500):
            self.client.log_batch(self.id, metrics=metrics[start : start + 500])

    def finish(self, numbers: Numbers) -> None:
        """Send the numbers at the end, and call the run finished."""
        self.log([(0, numbers)])
        self.client.set_terminated(self.id)

    def close(self) -> None:
        """Nothing is held."""


class Wandb:
    """A run of Weights & Biases, online or offline (WANDB_MODE=offline)."""

    def __init__(self, name: str, config: Mapping[str, Any], tags: Mapping[str, str], run_id: str | None, place: Path):
        """Begin or continue a run, whose local files lie below `place`."""
        import wandb

        self.run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            id=run_id or f"{tags['signature']}-{int(1000 * time.time()):x}",
            resume="allow",
            name=name,
            config={**config, **tags},
            dir=str(place),
            reinit="create_new",
            settings=wandb.Settings(
                console="off",
                disable_git=True,
                disable_code=True,
                x_disable_stats=True,
                silent=True,
                init_timeout=30,
                x_disable_meta=True,
                x_save_requirements=False,
            ),  # fmt: skip
        )
        # Steps logged again after a resume are not smaller than the tracker's own, which count messages.
        self.run.define_metric("*", step_metric="step")
        self.id = str(self.run.id)

    def log(self, rows: Sequence[tuple[int, Numbers]]) -> None:
        """Send numbers by step."""
        for step, held in rows:
            self.run.log({"step": step, **held})

    def finish(self, numbers: Numbers) -> None:
        """Send the numbers at the end, and call the run finished."""
        self.run.summary.update(dict(numbers))
        self.run.finish()

    def close(self) -> None:
        """Write what is held; a later process continues the run by its id."""
        self.run.finish()


TRACKERS: dict[str, type[MLflow] | type[Wandb]] = {"mlflow": MLflow, "wandb": Wandb}
"""Every tracker by name."""


def _name(key: str) -> str:
    """A name that MLflow takes: letters, digits, and a few signs."""
    return "".join(letter if letter.isalnum() or letter in "_-./ " else "_" for letter in key)
