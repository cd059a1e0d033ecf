"""Who the nodes of a job are, and how they are reached."""

from __future__ import annotations

import subprocess
import sys

import pytest

from slurm import hosts
from slurm.errors import FailedError

LISTS = {
    "n[01-03,12],gpu-a[7-8]": ["n01", "n02", "n03", "n12", "gpu-a7", "gpu-a8"],
    "login": ["login"],
    "a1,a2": ["a1", "a2"],
    "r[1-2]n[09-10],x": ["r1n09", "r1n10", "r2n09", "r2n10", "x"],
    "n[8-11]": ["n8", "n9", "n10", "n11"],
    "n[098-101]": ["n098", "n099", "n100", "n101"],
}


@pytest.mark.parametrize("text", LISTS)
def test_list_of_nodes_is_expanded_in_slurms_order_without_scontrol(text, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    assert hosts.expand(text) == LISTS[text]


@pytest.mark.parametrize("text", ["", "n[1-", "n[a-b]", "a b"])
def test_what_is_no_list_of_nodes_is_one_line(text):
    with pytest.raises(FailedError, match="not a list of nodes"):
        hosts.expand(text)


@pytest.mark.slurm
def test_slurm_itself_expands_lists_of_nodes_so(cluster):
    for text, names in LISTS.items():
        shown = subprocess.run(["scontrol", "show", "hostnames", text], capture_output=True, text=True, check=True)
        assert shown.stdout.split() == names


def test_address_that_nobody_knows_is_one_line_without_scontrol_too(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(hosts, "RESOLVE_S", 5.0)
    with pytest.raises(FailedError, match="no-such-node.invalid cannot be resolved"):
        hosts.head_and_own("no-such-node.invalid", 0)


@pytest.mark.skipif(sys.platform != "linux", reason="Linux: an interface is named by its address there only")
def test_interface_is_named_by_its_address():
    assert hosts.interface("127.0.0.1") == "lo"
    assert hosts.interface("203.0.113.9") is None
