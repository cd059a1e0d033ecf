"""Who the nodes of this job are, and how they are reached."""

from __future__ import annotations

import concurrent.futures
import contextlib
import itertools
import re
import socket
import subprocess

import psutil

from slurm.errors import FailedError

RESOLVE_S = 30.0
"""A name that no name server answered for in so many seconds is taken as unresolvable."""


_GROUP = r"(?:[^,\[\]\s]|\[\d[\d,-]*\])+"


def expand(nodelist: str) -> list[str]:
    """Return the node names of SLURM's notation, in its order: "gpu[01-03,7],login" -> gpu01 gpu02 gpu03 gpu7 login.

    Needs no scontrol: inside a container there may be none.

    Raises:
        FailedError: it is something else.
    """
    if not re.fullmatch(rf"{_GROUP}(?:,{_GROUP})*", nodelist):
        raise FailedError(f"SLURM_JOB_NODELIST is {nodelist!r}, which is not a list of nodes")
    names = []
    for group in re.findall(_GROUP, nodelist):
        parts = re.findall(r"\[([^\]]*)\]|([^\[\]]+)", group)
        choices = [_numbers(numbers) if numbers else [text] for numbers, text in parts]
        names += ["".join(words) for words in itertools.product(*choices)]
    return names


def _numbers(text: str) -> list[str]:
    found = []
    for part in text.split(","):
        low, _, high = part.partition("-")
        found += [f"{number:0{len(low)}}" for number in range(int(low), int(high or low) + 1)]
    return found


def address(node: str, peer: str | None = None) -> str:
    """Return a node's IPv4 address: by its name, else by the address SLURM itself uses.

    Args:
        node: Node name.
        peer: Another node of the job, given when `node` is this one: Debian maps a host's own name to 127.0.1.1,
            which no other node can reach, and then the address that leads to the peer is taken.

    Raises:
        FailedError: neither can be found; the message names the node and the fix.
    """
    found = _resolve(node)
    if found is None or found == "127.0.1.1":
        told = _told_by_slurm(node)
        found = (_resolve(told) if told else None) or found
    if found == "127.0.1.1" and peer is not None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect((address(peer), 9))  # sends nothing: it only chooses the route
            found = str(probe.getsockname()[0])
    if found is None:
        raise FailedError(
            f"the node {node} cannot be resolved from {socket.gethostname()}: neither its name nor SLURM's NodeAddr "
            f"for it has an address; ask the administrators (test: srun -w {node} getent hosts {node})"
        )
    return found


def interface(address: str) -> str | None:
    """Return the name of this machine's network interface that has an address; None when none has it."""
    for name, found in psutil.net_if_addrs().items():
        if any(entry.address == address for entry in found):
            return name
    return None


def _told_by_slurm(node: str) -> str | None:
    """Return the address or name by which SLURM reaches a node; None when it cannot be asked here."""
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):  # no scontrol in a container
        shown = subprocess.run(["scontrol", "show", "node", node], capture_output=True, text=True, timeout=60).stdout
        match = re.search(r"NodeAddr=(\S+)", shown)
        return match[1] if match else None
    return None


def _resolve(name: str) -> str | None:
    pool = concurrent.futures.ThreadPoolExecutor(1)
    try:
        answers = pool.submit(socket.getaddrinfo, name, None, socket.AF_INET, socket.SOCK_STREAM).result(RESOLVE_S)
    except (OSError, concurrent.futures.TimeoutError, UnicodeError):
        return None
    finally:
        pool.shutdown(wait=False)
    addresses = [str(answer[4][0]) for answer in answers]
    return next((found for found in addresses if found != "127.0.1.1"), addresses[0] if addresses else None)


def head_and_own(nodelist: str, node: int) -> tuple[str, str]:
    """Return the addresses of the job's first node and of this one (number `node` of the list)."""
    names = expand(nodelist)
    peer = names[1 if node == 0 else 0] if len(names) > 1 else None
    own = address(names[node], peer)
    return (own if node == 0 else address(names[0])), own
