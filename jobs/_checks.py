"""What a login node refuses before anything is queued, as the run itself would: settings, inputs, the output's folder.

Torch-free. A run whose inputs a job before it is yet to make (`waits`) is checked as far as its inputs are there.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jobs import _complete


def pretrain(config: Any, waits: bool) -> None:
    """Refuse a pretraining that could not start, or would start in another run's folder.

    Raises:
        ValueError: naming the setting, the file or the folder; it has exit code 2.
    """
    from cxrdist import pending
    from cxrdist.pretrain.config import IGNORED_BY_SIGNATURE, validate
    from cxrdist.pretrain.run_folder import identify, resolve
    from results.identity import plain
    from results.run import Run

    if waits:
        validate(config)
        pending.check_pretraining(config)
        _complete.refuse_other(config.out, "pretrain", plain(config), IGNORED_BY_SIGNATURE)
    else:
        found = resolve(config)
        Run.check(
            config.out,
            job="pretrain",
            signature=identify(*found),
            config=plain(found[0]),
            ignore=IGNORED_BY_SIGNATURE,
        )


def trial(config: Any, waits: bool) -> None:
    """The same for one fine-tuning."""
    from cxrdist import pending
    from cxrdist.finetune import identity
    from cxrdist.finetune.config import IGNORED_BY_SIGNATURE, check, run_settings
    from cxrdist.finetune.unused import check_used
    from results.run import Run

    check(config)
    check_used(config)
    if waits:
        pending.check_trial(config)
        _complete.refuse_other(config.out, "finetune", *_complete.trial_settings(config))
    else:
        found = identity.resolve(config)
        Run.check(
            config.out,
            job="finetune",
            signature=identity.trial_signature(found),
            config=run_settings(found),
            ignore=IGNORED_BY_SIGNATURE,
        )


def sweep(config: Any, waits: bool) -> None:
    """The same for a sweep: every cell, its folder, and that what an earlier part of it began with is still there."""
    from cxrdist.sweep import grid
    from cxrdist.sweep.folder import SweepFolder
    from cxrdist.sweep.run import refuse_other_content

    ledger = SweepFolder(Path(config.out))
    ledger.refuse_foreign()
    if waits:
        grid.check_settings(config)
    else:
        refuse_other_content(grid.expand(config), ledger)
