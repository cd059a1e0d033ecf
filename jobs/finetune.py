"""`cxrdist finetune`: one trial."""

from __future__ import annotations

import sys

from cxrdist.finetune_config import FinetuneConfig

HELP = "Train one classifier from an initialisation on a fraction of the labels, and test it."
Config = FinetuneConfig


def run(config: FinetuneConfig) -> int:
    """Make the run, or take up an earlier one, train it in this process and print its numbers."""
    from cxrdist import cells
    from cxrdist.finetune_config import check, plain
    from results.run import Run

    resolved = cells.resolve(check(config))
    trial = Run.create(
        config.out,
        job="finetune",
        config=plain(resolved),
        signature=cells.trial_signature(resolved),
        shards=cells.trial_shards(resolved),
    )
    if not trial.is_done:
        from cxrdist import finetune

        finetune.main(str(trial.path))
    if not trial.is_done:
        print(f"{trial.path}: stopped; the same command goes on from its last step", file=sys.stderr)
        return 130
    done = trial.read_done()
    shown = {name: done.get(name) for name in ("val_auroc", "test_auroc")}
    numbers = ", ".join(f"{name} {'undefined' if v is None else format(v, '.4f')}" for name, v in shown.items())
    print(f"{trial.path}: done; {numbers} (macro over labels), {done['n_labelled']} labelled images")
    return 0
