"""A rank without torch: `python -m where_worker FILE` writes which rank it is, and where rank 0 is said to be."""

import os
import sys
from pathlib import Path

Path(sys.argv[1]).write_text(f"{os.environ['RANK']} {os.environ['MASTER_ADDR']}")
