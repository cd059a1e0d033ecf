"""Work without torch: `python -m part_worker FOLDER PART` notes each start; stops when asked; else PART is done.

FOLDER/seconds says how long the first start of a part takes; later ones take no time, or as long with FOLDER/always.
"""

import sys
import time
from pathlib import Path

from slurm.signals import StopRequest

stop = StopRequest().install()
folder, part = Path(sys.argv[1]), sys.argv[2]
with (folder / f"started-{part}").open("a") as log:
    log.write("started\n")
starts = len((folder / f"started-{part}").read_text().splitlines())
long = starts == 1 or (folder / "always").exists()
deadline = time.monotonic() + (float((folder / "seconds").read_text()) if long else 0)
while time.monotonic() < deadline and not stop.requested:
    time.sleep(0.05)
if stop.requested:
    sys.exit(130)
(folder / f"done-{part}").touch()
