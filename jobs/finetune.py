"""`cxrdist finetune`: one trial."""

from __future__ import annotations

import sys
from pathlib import Path

from cxrdist.finetune.config import FinetuneConfig
from slurm.importing import large_modules

HELP = "Train one classifier from an initialisation on a fraction of the labels, and test it."
Config = FinetuneConfig


def run(config: FinetuneConfig) -> int:
    """Make the run, or take up an earlier one, train it in this process and print its numbers."""
    from cxrdist.finetune import identity
    from cxrdist.finetune.config import check
    from cxrdist.finetune.unused import check_used

    check_used(config)
    resolved = identity.resolve(check(config))
    new = not Path(config.out).exists()
    trial = identity.make_run(resolved)
    if not trial.is_done:
        with large_modules():
            from cxrdist.finetune.trial import main

        with trial.alone():
            try:
                main(str(trial.path))
            except BaseException:
                if new:
                    trial.discard()  # nothing was learnt; once the cause is fixed, this name must be free
                raise
    if not trial.is_done:
        print(f"{trial.path}: stopped; the same command goes on from its last step", file=sys.stderr)
        return 130
    done = trial.read_done()
    shown = {name: done.get(name) for name in ("val_auroc", "test_auroc")}
    numbers = ", ".join(f"{name} {'undefined' if v is None else format(v, '.4f')}" for name, v in shown.items())
    counted = "" if config.level == "image" else "; validation by image, test by study"
    print(f"{trial.path}: done; {numbers} (macro over labels{counted}), {done['n_labelled']} labelled images")
    return 0
