"""`cxrdist sweep`: a grid of fine-tunings with Ray Tune."""

from __future__ import annotations

import sys

from cxrdist.sweep.config import SweepConfig

HELP = "Run a grid of fine-tunings with Ray Tune; the same command again runs what is missing."
Config = SweepConfig


def run(config: SweepConfig) -> int:
    """Run what is missing; SIGTERM and a scheduler's USR1/USR2 end it as Ctrl-C does."""
    import signal

    from cxrdist.sweep import run

    asks = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)

    def stop(number: int, frame: object) -> None:
        del frame
        for each in asks:  # schedulers and launchers repeat themselves: that must not break off the clearing up
            signal.signal(each, signal.SIG_IGN)
        raise KeyboardInterrupt(signal.Signals(number).name)

    for number in asks:
        signal.signal(number, stop)
    try:
        return run.run(config)
    except KeyboardInterrupt:
        print(f"{config.out}: stopped; the same command goes on from what is complete", file=sys.stderr)
        return 130
