"""`python -m tests.fuzz N`: N damaged inputs of each kind, and a table of what became of them."""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

from tests.fuzz.kinds import KINDS, outcomes
from tests.fuzz.workplace import Workplace

if __name__ == "__main__":
    count = int(sys.argv[1])
    kinds = sys.argv[2:] or list(KINDS)
    print("| input | damaged | refused in one line | read as before | accepted as another valid input | CPU s |")
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        place = Workplace(Path(folder))
        for kind in kinds:
            began = time.process_time()
            found = outcomes(place, kind, range(10**6, 10**6 + count))
            numbers = " | ".join(str(found[name]) for name in ("refused", "same", "accepted"))
            print(f"| {kind} | {count} | {numbers} | {time.process_time() - began:.0f} |", flush=True)
