"""Whether what a command is to make lies there already, made with the same settings from the same data.

Torch-free, so that a login node can ask. What lies there and was made otherwise is refused, and stays as it is.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from slurm.errors import InputError


def pretrained(config: Any) -> bool:
    """Whether this pretraining is done; refuses the folder of another one."""
    from cxrdist.pretrain.config import IGNORED_BY_SIGNATURE
    from cxrdist.pretrain.run_folder import identify, resolve
    from results.identity import plain

    return _is_complete(config.out, lambda: identify(*resolve(config)), plain(config), IGNORED_BY_SIGNATURE)


def finetuned(config: Any) -> bool:
    """Whether this trial is done; refuses the folder of another one."""
    from cxrdist.finetune import identity
    from cxrdist.finetune.config import check as check_trial

    def sign() -> str:
        return identity.trial_signature(identity.resolve(check_trial(config)))

    return _is_complete(config.out, sign, *trial_settings(config))


def trial_settings(config: Any) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The settings of a trial as its run records them, and which of them say nothing about its result."""
    from cxrdist.finetune.config import IGNORED_BY_SIGNATURE, run_settings, weight_decay

    filled = [name for name in ("arch", "image_size") if getattr(config, name) is None]  # from encoder or shards
    optim = dataclasses.replace(config.optim, weight_decay=weight_decay(config.optim))
    return run_settings(dataclasses.replace(config, optim=optim)), (*IGNORED_BY_SIGNATURE, *filled)


_BY_CONTENT = ("shards", "eval_shards", "init", "labels")
"""Settings that are written into a run in another form: as absolute places, or as a list."""


def _is_complete(out: str, sign: Callable[[], str], settings: dict[str, Any], ignored: Sequence[str]) -> bool:
    """Whether a run of these settings is done.

    Args:
        out: its folder.
        sign: gives the signature; raises an error where the inputs are gone or out of reach, for a run that is done
            does not need them any more. Then the settings alone are compared.
        settings: its configuration, nested.
        ignored: settings that do not change the result.

    Raises:
        InputError: the folder holds a finished run of other settings, or of other data.
    """
    from results.identity import differences
    from results.run import Run
    from shards import FailedError

    run = Run(out)
    if not run.is_done:
        return False
    held, signature = str(run.read_info().get("signature")), None
    with contextlib.suppress(ValueError, FailedError):
        signature = sign()
    if signature == held:
        return True
    differ = differences(run.read_config(), settings, (*ignored, *_BY_CONTENT))
    if signature is None and not differ:
        return True
    what = "; ".join(differ[:3]) or f"of other data or weights: signature {held}, not {signature}"
    raise InputError(f"{run.path} holds another run ({what}); choose another --out, or the options that made it")


def refuse_other(out: str, job: str, settings: dict[str, Any], ignored: Sequence[str]) -> None:
    """Refuse the folder of another run, as far as settings tell: its data and weights may be yet to be made.

    Args:
        out: the folder.
        job: pretrain or finetune.
        settings: see `_is_complete`.
        ignored: see `_is_complete`.

    Raises:
        InputError: it is a file, or holds other files or a run of other settings.
    """
    from results.identity import differences
    from results.run import Run

    run = Run(out)
    if not run.info.exists():
        Run.check(out, job=job, signature="")
        return
    held = run.read_info().get("job")
    differ = [f"job {held}, not {job}"] if held != job else []
    if not differ and run.config.is_file():
        differ = differences(run.read_config(), settings, (*ignored, *_BY_CONTENT))
    if differ:
        raise InputError(
            f"{run.path} holds another run ({'; '.join(differ[:3])}); choose another --out, or the options that made it"
        )


def is_made(mark: Path, out: Path | None) -> bool:
    """Whether a command has run to its end, and what it wrote is still what it wrote."""
    if not mark.is_file():
        return False
    out = None if out is None else out.expanduser()
    if out is None or out.is_dir():
        return True
    # A table that was deleted, or written over by a command of other settings since, is to be made again.
    return out.exists() and out.stat().st_mtime_ns <= mark.stat().st_mtime_ns


def swept(out: Path) -> bool:
    """Whether every cell that a sweep's plan names is done; the folders say so, whatever was marked."""
    try:
        cells = [cell["signature"] for cell in json.loads((out / "sweep.json").read_text(encoding="utf-8"))["cells"]]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return all((out / "cells" / str(name) / "done.json").is_file() for name in cells)


def shard_set(out: Path, config: Any) -> bool:
    """Whether this conversion is done; refuses a set that was made with other settings. Sources are not looked at."""
    if not (out / "dataset.json").is_file():
        return False
    from shards import read_card
    from shards.convert.config import ConvertConfig, check_settings

    check_settings(read_card(out).config, config.recorded(), out, whole=isinstance(config, ConvertConfig))
    return True
