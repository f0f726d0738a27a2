"""Hosts of our own: network namespaces with a tun device each, and a wire that loses packets.

Called by tests, on the main thread; what happens on a host runs on a thread that has entered its
namespace, and so do the threads that this one starts. The wire is ours and not the kernel's netem,
which not every kernel has: what a tun device sends is read from its descriptor and written to that
of the other one, or thrown away.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import functools
import os
import random
import select
import shutil
import struct
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from helpers.polls import Running

CLONE_NEWNS = 0x00020000
CLONE_NEWNET = 0x40000000
MS_BIND, MS_REC, MS_PRIVATE = 0x1000, 0x4000, 1 << 18
TUNSETIFF = 0x400454CA
IFF_TUN, IFF_NO_PI = 0x0001, 0x1000

_libc = ctypes.CDLL(None, use_errno=True)


def _call(name: str, *args: object) -> None:
    """Call a function of libc that says -1 and errno."""
    if getattr(_libc, name)(*args) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{name}: {os.strerror(code)}")


class Host:
    """A network namespace with one interface, tun0. What it sends comes out of .wire."""

    def __init__(self, *addresses: str, mtu: int = 1500) -> None:
        """Make it; *addresses* are those of tun0, with the prefix: "10.77.0.1/24"."""
        self.wire, self.namespace = Running(self._make, addresses, mtu).join()

    @staticmethod
    def _make(addresses: tuple[str, ...], mtu: int) -> tuple[int, int]:
        """Return the descriptors of the tun device and of the namespace."""
        _call("unshare", CLONE_NEWNET)
        wire = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            fcntl.ioctl(wire, TUNSETIFF, struct.pack("16sH22x", b"tun0", IFF_TUN | IFF_NO_PI))
            lines = ["link set lo up", f"link set tun0 mtu {mtu} txqueuelen 2000 up"]
            for address in addresses:
                nodad = " nodad" if ":" in address else ""
                lines.append(f"addr add {address} dev tun0{nodad}")
            ip(*lines)
            return wire, os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        except BaseException:
            os.close(wire)
            raise

    def start(self, fn: Callable[..., Any], *args: Any, **options: Any) -> Running:
        """Run fn(*args, **options) on this host, on a thread that is returned."""
        return Running(self._run, functools.partial(fn, *args, **options))

    def run(self, fn: Callable[..., Any], *args: Any, **options: Any) -> Any:
        """Run it to its end and return its result."""
        return self.start(fn, *args, **options).join(seconds=60)

    def _run(self, fn: Callable[[], Any]) -> Any:
        _call("setns", self.namespace, CLONE_NEWNET)
        return fn()

    def close(self) -> None:
        """Let it go; the kernel removes it with its last thread and socket."""
        os.close(self.wire)
        os.close(self.namespace)


def ip(*lines: str) -> None:
    """Run lines of ip(8) in the namespace of this thread."""
    subprocess.run(["ip", "-batch", "-"], input="\n".join(lines), text=True, check=True)


class Wire:
    """Carries packets between two hosts until it is cut; loses a share of them."""

    def __init__(self, a: Host, b: Host, loss: float, seed: int) -> None:
        """Lose *loss* of all packets, those that a generator with *seed* chooses."""
        self.loss = loss
        self.carried = self.lost = 0
        self._random = random.Random(seed)
        self._ends = {a.wire: b.wire, b.wire: a.wire}
        self._stop = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._running = Running(self._carry)

    def _carry(self) -> None:
        poll = select.poll()
        for fd in (*self._ends, self._stop):
            poll.register(fd, select.POLLIN)
        while True:
            for fd, _ in poll.poll():
                if fd == self._stop:
                    return
                self._carry_from(fd)

    def _carry_from(self, fd: int) -> None:
        for _ in range(64):  # then it is the other end's turn
            try:
                packet = os.read(fd, 1 << 16)
            except BlockingIOError:
                return
            if self._random.random() < self.loss:
                self.lost += 1
            else:
                self.carried += 1
                os.write(self._ends[fd], packet)

    def cut(self) -> None:
        """Stop carrying."""
        os.eventfd_write(self._stop, 1)
        try:
            self._running.join()
        finally:
            os.close(self._stop)


@functools.cache
def _why_not() -> str:
    """Return why there can be no host here, or nothing."""
    if shutil.which("ip") is None:
        return "no ip (apt-get install iproute2)"
    try:
        Host("10.77.0.1/24").close()
    except (OSError, subprocess.CalledProcessError) as exc:
        return f"no network namespaces here: {exc}"
    return ""


@contextlib.contextmanager
def host(*addresses: str) -> Iterator[Host]:
    """Give a host whose interface swallows what it is sent: all that lies behind it is a hole."""
    if _why_not():
        pytest.skip(_why_not())
    made = Host(*addresses)
    try:
        yield made
    finally:
        made.close()


@contextlib.contextmanager
def two_hosts(*, loss: float, seed: int) -> Iterator[tuple[Host, Host, Wire]]:
    """Give 10.77.0.1 and 10.77.0.2, and the wire between them."""
    with host("10.77.0.1/24") as a, host("10.77.0.2/24") as b:
        wire = Wire(a, b, loss, seed)
        try:
            yield a, b, wire
        finally:
            wire.cut()


def with_resolv_conf(path: Path, fn: Callable[..., Any], *args: Any) -> Any:
    """Run fn(*args) on this thread, which sees *path* as /etc/resolv.conf from now on.

    So do the threads that it starts. Nobody else does, and it ends with the thread.
    """
    target = os.path.realpath("/etc/resolv.conf").encode()
    try:
        _call("unshare", CLONE_NEWNS)
        _call("mount", None, b"/", None, ctypes.c_ulong(MS_REC | MS_PRIVATE), None)
        _call("mount", os.fsencode(path), target, None, ctypes.c_ulong(MS_BIND), None)
    except PermissionError as exc:
        pytest.skip(f"no mount namespaces here: {exc}")
    return fn(*args)
