"""One job of a sweep's array: `python -m cxrdist.sweep.array_part OUT PART` trains the cells of a part, one by one.

A cell that fails is noted in the sweep's folder and the next one goes on; a stop signal saves and ends with the exit
code that sends the job back to the queue.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from cxrdist.sweep import worker
from cxrdist.sweep.folder import SweepFolder
from cxrdist.sweep.slurm_array import is_done, parts_file
from slurm.requeue import STOPPED
from slurm.signals import StopRequest


def main(out: str, part: str) -> int:
    """Train what is not done of a part; 0 at its end, STOPPED when asked to stop before it."""
    stop = StopRequest().install()
    _, Stopped = worker.training()
    ledger = SweepFolder(Path(out))
    cells = {cell["signature"]: cell for cell in json.loads(ledger.spec.read_text())["cells"]}
    for name in json.loads(parts_file(Path(out)).read_text())[int(part)]:
        if stop.requested:
            return STOPPED
        if is_done(ledger, name):
            continue
        try:
            good = worker.run(out, cells[name], stop)
        except Stopped:
            return STOPPED
        print(f"{name}: {'done' if good else 'failed, see ' + str(ledger.log(name))}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:3]))
