"""A Ray cluster on this machine for a test: its nodes' resources are declared, and a node can be lost.

    python -m tests.cxrdist.ray_cluster FOLDER '[{"num_cpus": 2, "num_gpus": 2}, {"num_cpus": 1}]'

prints the address; a line `lose N` on standard input kills node N at once, the end of standard input ends all.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys

from ray.cluster_utils import Cluster


def main(folder: str, described: str) -> None:
    """Start the nodes, the first as head, and obey."""
    wanted = [{"object_store_memory": 80_000_000, "include_dashboard": False, **node} for node in json.loads(described)]
    head = wanted[0] | {"temp_dir": folder}
    # Cluster leaves its address in Ray's usual place, wherever it works itself.
    os.makedirs("/tmp/ray", exist_ok=True)
    cluster = Cluster(initialize_head=True, head_node_args=head)
    nodes = [cluster.head_node, *(cluster.add_node(**node) for node in wanted[1:])]
    print(cluster.address, flush=True)
    try:
        for line in sys.stdin:
            if line.startswith("lose "):
                cluster.remove_node(nodes[int(line.split()[1])], allow_graceful=False)
                print("lost", flush=True)
    finally:
        cluster.shutdown()
        with contextlib.suppress(FileNotFoundError):
            os.remove("/tmp/ray/ray_current_cluster")


if __name__ == "__main__":
    main(*sys.argv[1:])
