"""Worker of test_addresses: joins a gloo group and adds up what the ranks give."""

import sys
from pathlib import Path

import torch
import torch.distributed as dist

if __name__ == "__main__":
    dist.init_process_group("gloo")
    value = torch.tensor([10.0 ** dist.get_rank()])
    dist.all_reduce(value)
    (Path(sys.argv[1]) / f"sum-{dist.get_rank()}").write_text(str(value.item()))
    dist.destroy_process_group()
