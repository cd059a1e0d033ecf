"""What a trial was made with: frozen by content in its folder, compared when it is opened, named in its results.

The training writes what describes a model once; whoever tests the model later copies it from the run and reads nothing
anew. Free of torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from cxrdist.cells import read_start, trial_shards, trial_signature
from cxrdist.errors import InputError
from cxrdist.finetune_config import IGNORED_BY_SIGNATURE, FinetuneConfig, plain
from cxrdist.places import recorded
from results.configs import config_text, of_run
from results.run import Run

if TYPE_CHECKING:
    import pyarrow as pa

OF_THE_RUN = (
    "signature", "arch", "init", "init_signature", "init_hash", "mode", "pretrain_dataset", "pretrain_dataset_hash",
    "train_dataset", "train_dataset_hash", "label_fraction", "n_labelled", "fraction_hash", "n_val", "val_fraction",
    "threshold_rule", "seed", "variant", "config", "n_parameters", "wall_seconds", "gpu_seconds",
)  # fmt: skip
"""Columns of METRICS that describe how a model came to be: the training writes them, every later test copies them."""


def make_run(config: FinetuneConfig, command: list[str] | None = None) -> Run:
    """Freeze a resolved trial in its folder, with the content of all that it reads.

    Raises:
        InputError: the folder holds another run or other files.
    """
    return Run.create(
        config.out,
        job="finetune",
        config=plain(config),
        signature=trial_signature(config),
        shards=trial_shards(config),
        init=read_start(config.init).facts(),
        command=command,
    )


def check_init(run: Run, init: str) -> None:
    """Refuse an encoder that is not the one the run was made with.

    Raises:
        InputError: naming both hashes.
    """
    held = (run.read_info().get("init") or {}).get("sha256")
    found = read_start(init)
    if held is not None and held != found.sha256:
        raise InputError(
            f"{found.file or init} is another encoder than {run.path} was made with: hash {found.sha256}, not {held};"
            " put that one back, or train in a new --out"
        )


def trained_context(run: Run, config: FinetuneConfig, facts: Mapping[str, Any]) -> dict[str, Any]:
    """The columns `OF_THE_RUN` of a trial that has just been trained.

    Args:
        run: the run folder; what it starts from is as recorded there.
        config: resolved.
        facts: n_labelled, fraction_hash, n_val, train_dataset, train_dataset_hash, n_parameters, wall_seconds,
            gpu_seconds.
    """
    info = run.read_info()
    start = info.get("init") or read_start(config.init).facts()
    return {
        "signature": info["signature"],
        "arch": config.arch,
        "init": start.get("name"),
        "init_signature": start.get("signature"),
        "init_hash": start.get("sha256"),
        "mode": config.mode,
        "pretrain_dataset": start.get("dataset"),
        "pretrain_dataset_hash": start.get("dataset_hash"),
        "label_fraction": config.label_fraction,
        "val_fraction": None if not facts["n_val"] else config.label_fraction if config.val_fraction_too else 1.0,
        "threshold_rule": config.threshold,
        "seed": config.seed,
        "variant": config.variant,
        "config": config_text(
            plain(config),
            ignore=IGNORED_BY_SIGNATURE,
            content={
                "shards": facts["train_dataset_hash"],
                "init": start.get("sha256") or config.init,
                "eval_shards": None,
            },
        ),
        **facts,
    }


def kept_context(run: Run, config: FinetuneConfig, rows: pa.Table) -> dict[str, Any]:
    """The columns `OF_THE_RUN` as the training left them in a run's results; later tests change none of them."""
    first = rows.slice(0, 1).to_pylist()[0]
    described = {name: first[name] for name in OF_THE_RUN}
    described["train_dataset_hash"] = described["train_dataset_hash"] or recorded(run, config.shards)
    described["threshold_rule"] = described["threshold_rule"] or config.threshold
    described["config"] = described["config"] or of_run(run)
    return described
