"""A rendezvous for torchrun in which the group's order is the order of the job's nodes.

torchrun's own c10d rendezvous orders agents by their addresses as text: 10.0.0.10 comes before 10.0.0.9, and rank 0,
whose log is the one to read, sits on whatever node that makes first. Here the agents meet as in c10d; then each takes
its node's number as its place. Built on the interface that torch documents for other rendezvous.
"""

from __future__ import annotations

import importlib
from typing import Any

NAME = "c10d-by-node"
"""What --rdzv-backend calls it; --rdzv-conf needs node=NUMBER beside what c10d takes."""


def register() -> None:
    """Make it known to the torchrun in this process (this package does not import torch by itself)."""
    api = importlib.import_module("torch.distributed.elastic.rendezvous")
    c10d = importlib.import_module("torch.distributed.elastic.rendezvous.c10d_rendezvous_backend")
    dynamic = importlib.import_module("torch.distributed.elastic.rendezvous.dynamic_rendezvous")
    prefixed = importlib.import_module("torch.distributed").PrefixStore

    class ByNode(api.RendezvousHandler):
        """Everything is c10d's but the order."""

        def __init__(self, parameters: Any) -> None:
            backend, store = c10d.create_backend(parameters)
            self.c10d = dynamic.create_handler(store, backend, parameters)
            self.node, self.address = parameters.get_as_int("node"), parameters.local_addr

        @property
        def use_agent_store(self) -> bool:
            return self.c10d.use_agent_store

        def get_backend(self) -> str:
            return NAME

        def next_rendezvous(self) -> Any:
            """Wait for all agents; the first node's address is where the ranks then meet."""
            met = self.c10d.next_rendezvous()
            where = met.bootstrap_store_info
            if not self.use_agent_store:
                where = api.RendezvousStoreInfo.build(self.node, prefixed("by-node", met.store), self.address)
            return api.RendezvousInfo(met.store, self.node, met.world_size, where)

        def is_closed(self) -> bool:
            return self.c10d.is_closed()

        def set_closed(self) -> None:
            self.c10d.set_closed()

        def num_nodes_waiting(self) -> int:
            return self.c10d.num_nodes_waiting()

        def get_run_id(self) -> str:
            return self.c10d.get_run_id()

        def shutdown(self) -> bool:
            return self.c10d.shutdown()

    api.rendezvous_handler_registry.register(NAME, ByNode)
