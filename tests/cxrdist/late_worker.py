"""Work of test_distributed: a pretraining whose second rank is slow to get its data; notes when what happened."""

import os
import time
from pathlib import Path
from typing import Any

import torch.distributed as dist

from cxrdist.pretrain import loop


def main(run: str) -> None:
    """Train; RUN/opened and RUN/joined hold when the second rank had its data, and when the first one joined."""
    is_second = os.environ["RANK"] == "1"
    open_data, init = loop.open_data, dist.init_process_group

    def late(*args: Any, **more: Any) -> Any:
        time.sleep(2 if is_second else 0)
        found = open_data(*args, **more)
        if is_second:
            Path(run, "opened").write_text(str(time.time()))
        return found

    def joining(*args: Any, **more: Any) -> None:
        if not is_second:
            Path(run, "joined").write_text(str(time.time()))
        init(*args, **more)

    loop.open_data, dist.init_process_group = late, joining
    loop.main(run)
