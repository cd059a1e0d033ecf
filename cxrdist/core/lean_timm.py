"""timm without the import of wandb: `from cxrdist.core.lean_timm import timm`, before anything else imports it.

A helper of timm's own training script imports wandb wherever it is installed, which is a tenth of the time in which a
rank, a worker of a sweep or a command with a network starts. Nothing here uses that helper, and timm takes an absent
wandb as it comes. Our own tracking imports it later, and only where it is asked for (results/tracking/backends.py).
"""

from __future__ import annotations

import sys
from typing import cast

_HIDDEN = "wandb" not in sys.modules
if _HIDDEN:
    cast(dict[str, None], sys.modules)["wandb"] = None  # Python's way of saying that there is none
try:
    import timm as timm
finally:
    if _HIDDEN:
        del sys.modules["wandb"]
