"""What a cluster does to a job that must make room for another, and what that means for a run."""

from __future__ import annotations

import dataclasses
import re

from slurm import client


@dataclasses.dataclass(frozen=True, kw_only=True)
class Preemption:
    """How the jobs of a partition are preempted."""

    mode: str
    """REQUEUE, CANCEL, SUSPEND, GANG or OFF; QOS where each quality of service has its own."""
    grace_s: int
    """Seconds between the first signal and the end of the job."""
    kill_wait_s: int
    """Seconds that a job still has after TERM when its time is over."""
    user_signal: bool
    """Whether the job gets the stop signal that it asked for, and not TERM only."""


def of(partition: str | None) -> Preemption:
    """Return how a partition's jobs are preempted; None takes the cluster's default partition.

    Raises:
        FailedError: SLURM absent or not answering, or no such partition.
    """
    config = dict(re.findall(r"^(\w+)\s*= (.*)$", client.call("scontrol", "show", "config"), flags=re.MULTILINE))
    facts: dict[str, str] = {}
    for line in client.call("scontrol", "-o", "show", "partition", *([partition] if partition else [])).splitlines():
        found = dict(re.findall(r"(\w+)=(\S*)", line))
        if partition or found.get("Default") == "YES":
            facts = found
    mode = facts.get("PreemptMode") or config.get("PreemptMode", "OFF")
    if "none" in config.get("PreemptType", "none"):
        mode = "OFF"
    elif "qos" in config["PreemptType"]:
        mode = "QOS"
    return Preemption(
        mode=mode.split(",")[-1],
        grace_s=int(re.sub(r"\D", "", facts.get("GraceTime", "0")) or 0),
        kill_wait_s=int(re.sub(r"\D", "", config.get("KillWait", "30")) or 30),
        user_signal="preempt_send_user_signal" in config.get("SlurmctldParameters", ""),
    )


def meaning(how: Preemption) -> tuple[str, str]:
    """Return (what happens to a run, what to do about it or "")."""
    signal = "the stop signal" if how.user_signal else "TERM, which works as well"
    seconds = how.grace_s or how.kill_wait_s
    time = f"{how.grace_s} s of grace" if how.grace_s else f"no grace time, {how.kill_wait_s} s of KillWait"
    if how.mode == "REQUEUE":
        return f"jobs get {signal} ({time}), save, and are requeued", ""
    if how.mode == "CANCEL":
        return (
            f"PreemptMode=CANCEL: jobs get {signal} ({time}), save, and go back to the queue by themselves",
            f"what is not saved within {seconds} s is lost, and the run then ends as PREEMPTED: "
            "set checkpoint.every_minutes, and submit it again",
        )
    if how.mode in ("SUSPEND", "GANG"):
        return (
            f"PreemptMode={how.mode}: jobs are stopped where they are and go on later",
            "ranks on several nodes may run into their time-outs; a GPU's memory stays taken",
        )
    if how.mode == "QOS":
        return "decided by your quality of service", "sacctmgr show qos format=name,preemptmode,gracetime"
    return "jobs of this partition are not preempted", ""
