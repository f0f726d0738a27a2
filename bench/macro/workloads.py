"""The workloads, in the order in which they are run and printed."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Workload:
    """What one load process does, and how many connections stand idle beside it."""

    name: str
    title: str
    connections: int
    size: int = 1024
    depth: int = 1
    churn: bool = False
    idle: int = 0


WORKLOADS = {
    w.name: w
    for w in (
        Workload("a0", "1 KiB x 64 connections", 64),
        Workload("b0", "1 KiB x 1 connection, ping-pong", 1),
        Workload("c0", "64 KiB x 16 connections", 16, size=65536),
        Workload("d0", "1 KiB x 64 connections, 16 deep", 64, depth=16),
        Workload("e0", "connect, 1 KiB echo, close; 16 at a time", 16, churn=True),
        Workload("f0", "1 KiB x 64 of 10,000 connections", 64, idle=10_000 - 64),
    )
}
