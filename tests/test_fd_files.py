"""FD on what is no socket: eventfds, timerfds, terminals, tun; and what the kernel will not poll.

Pipes are in test_fdop.py.
Go: os/file_unix.go's kinds; internal/poll/read_test.go, error_linux_test.go; os/timeout_test.go;
rows 23, 24, 26, 27.
"""

import ctypes
import errno
import mmap
import os
import pty
import struct
import tty

import pytest

import gopoll
from gopoll import Canceled, ClosedError, NotPollableError, OpError
from gopoll.runtime._sched import current_poller
from helpers.child import run_python
from helpers.fds import AnyFD, parked, pipe
from runtime.tools import ONE

TUN = "/dev/net/tun"
CLOCK_MONOTONIC, TFD_NONBLOCK, TFD_CLOEXEC = 1, os.O_NONBLOCK, os.O_CLOEXEC


def may_open_tun():
    try:
        os.close(os.open(TUN, os.O_RDWR))
    except OSError:
        return False
    return True


needs_tun = pytest.mark.skipif(not may_open_tun(), reason="no /dev/net/tun to open here")


def opened(number, network="file"):
    """Return a registered FD on a descriptor that does not block."""
    os.set_blocking(number, False)
    fd = AnyFD(number, network, file=True)
    try:
        fd.init(current_poller())
    except BaseException:
        fd.close()
        raise
    return fd


def word(n):
    return struct.pack("=Q", n)


def test_an_eventfd_counts_and_waits_both_ways(run):
    async def main():
        fd = opened(os.eventfd(0))
        reader = await parked(fd.read, 8)
        assert await fd.write(word(3)) == 8
        assert await reader == word(3)
        assert await fd.write(word(2)) == 8
        with pytest.raises(OpError, match=r"^read file: invalid argument$") as caught:
            await fd.read(7)
        assert caught.value.errno == errno.EINVAL
        assert await fd.read() == word(2), "it is all there still"
        assert await fd.write(word(2**64 - 2)) == 8
        writer = await parked(fd.write, word(1))
        assert await fd.read() == word(2**64 - 2)
        assert await writer == 8
        assert await fd.read(8) == word(1)
        fd.set_read_timeout(0.001)
        with pytest.raises(TimeoutError, match=r"^read file: i/o timeout$"):
            await fd.read(8)
        fd.set_read_timeout(None)
        reader = await parked(fd.read, 8)
        fd.close()
        with pytest.raises(ClosedError, match=r"^read file: use of closed file$"):
            await reader

    run(main)


def test_a_timerfd_ticks(run):
    libc = ctypes.CDLL(None, use_errno=True)

    async def main():
        number = libc.timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC)
        assert number >= 0
        fd = opened(number, "timer")

        def arm(ns):
            spec = (ctypes.c_long * 4)(0, 0, 0, ns)
            assert libc.timerfd_settime(fd.fileno(), 0, spec, None) == 0

        for _ in range(3):
            reader = await parked(fd.read, 8)
            arm(1_000_000)
            assert await reader == word(1)
        reader = await parked(fd.read, 8)
        reader.cancel()
        with pytest.raises(Canceled):
            await reader
        arm(1)
        assert await fd.read(8) == word(1)
        with pytest.raises(OpError, match=r"^read timer: invalid argument$"):
            await fd.read(4)
        fd.close()

    run(main)


def test_a_terminal_reads_writes_and_hangs_up(run):
    async def main():
        ours, theirs = pty.openpty()
        tty.setraw(theirs)
        master, slave = opened(ours, "tty"), opened(theirs, "tty")
        reader = await parked(slave.read)
        await master.write(b"typed")
        assert await reader == b"typed"
        reader = await parked(master.read)
        await slave.write(b"shown")
        assert await reader == b"shown"
        big = bytes(range(1, 256)) * 400
        writer = gopoll.go(slave.write, big)
        got = bytearray()
        while len(got) < len(big):
            got += await master.read()
        assert (await writer, got) == (len(big), big)
        # The kernel does not splice every terminal; the bytes come all the same.
        with pipe() as (r, w):
            splicing = await parked(master.splice_from, r)
            await w.write(b"by splice")
            assert await slave.read() == b"by splice"
            w.close()
            assert await splicing == 9
        reader = await parked(master.read)
        slave.close()
        with pytest.raises(OpError, match=r"^read tty: input/output error$"):
            await reader
        master.close()

    run(main)


def test_a_fifo_may_have_no_other_end_yet(run, tmp_path):
    """Row 30, TestFIFONonBlockingEOF."""

    async def main():
        os.mkfifo(tmp_path / "fifo")
        fd = opened(os.open(tmp_path / "fifo", os.O_RDONLY | os.O_NONBLOCK), "fifo")
        assert await fd.read() == b"", "nobody writes"
        with open(tmp_path / "fifo", "wb", buffering=0) as writer:
            reader = await parked(fd.read)
            writer.write(b"x")
            assert await reader == b"x"
            reader = await parked(fd.read)
        assert await reader == b""
        fd.close()

    run(main)


@pytest.mark.parametrize("path", ["/dev/null", "/dev/zero", "/", __file__])
def test_what_is_always_ready_is_not_pollable_and_works_without(run, path):
    """Rows 24 and 26: concurrent reads do not fail; deadlines do."""

    async def main():
        number = os.open(path, os.O_RDONLY)
        fd = AnyFD(number, "file", file=True)
        with pytest.raises(
            NotPollableError, match=r"^open file: not pollable \(regular files are"
        ) as caught:
            fd.init(current_poller())
        assert isinstance(caught.value, PermissionError)
        assert fd.poller is None
        with pytest.raises(OpError, match=r"^set file: file type does not support deadline$"):
            fd.set_deadline(1)
        readers = [gopoll.go(fd.read, 10) for _ in range(5)]
        for g in readers:
            if path == "/":
                with pytest.raises(IsADirectoryError):
                    await g
            else:
                assert len(await g) == (0 if path == "/dev/null" else 10)
        assert fd.detach() == number
        os.close(number)

    run(main)


def test_a_long_write_that_never_waits_lets_the_others_run(run):
    """A13, in the middle of one operation. The kernel takes 2 GiB at most in a call."""

    async def main():
        turns = 0
        stop = False

        async def other():
            nonlocal turns
            while not stop:
                turns += 1
                await gopoll.gosched()

        size = 20 << 30  # never touched: it takes no memory
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000  # MAP_NORESERVE
        data = mmap.mmap(-1, size, flags=flags, prot=mmap.PROT_READ)
        fd = AnyFD(os.open("/dev/null", os.O_WRONLY), "file", file=True)
        counter = gopoll.go(other)
        assert await fd.write(data) == size
        assert turns >= 5, "these are 10 system calls, each more than a slice's worth"
        stop = True
        await counter
        long = gopoll.go(fd.write, data)
        await gopoll.gosched()
        assert await fd.write(b"x") == 1, "it queues behind the long one"
        assert long.done
        assert await long == size
        write = fd.write(data)
        next(write.__await__())
        with pytest.raises(Canceled) as caught:
            write.throw(Canceled())
        assert 0 < caught.value.written < size
        assert await fd.write(b"x") == 1, "the lock is free"
        fd.close()

    run(main, **ONE)


@pytest.mark.parametrize("path", ["/proc/stat", "/proc/self/mounts"])
def test_special_files_that_can_be_polled_are_read_to_their_end(run, path):
    """Row 24."""

    async def main():
        fd = opened(os.open(path, os.O_RDONLY))
        with open(path, "rb") as file:
            text = file.read()
        readers = [gopoll.go(fd.read, 1 << 20) for _ in range(4)]
        parts = [await g for g in readers]
        assert any(part[:3] == text[:3] for part in parts)
        assert await fd.read() == b""
        fd.close()

    run(main)


@needs_tun
def test_an_unconfigured_tun_says_that_it_cannot_be_read(run):
    """Row 23: its events are EPOLLERR alone, its read(2) EBADFD."""

    async def main():
        fd = opened(os.open(TUN, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC), "tun")
        for _ in range(3):
            with pytest.raises(OpError) as caught:
                await fd.read(1)
            exc = caught.value
            assert isinstance(exc, NotPollableError) or exc.errno == errno.EBADFD
            await gopoll.sleep(0.001)
        fd.close()

    run(main)


@needs_tun
def test_no_error_of_one_descriptor_comes_to_the_next_that_has_its_poll_desc(run):
    """Row 27: the error event of a tun, fetched late, must not hit the pipe in its place."""

    async def main():
        stop = False

        async def opens():
            for i in range(20_000):
                opened(os.open(TUN, os.O_RDWR | os.O_CLOEXEC), "tun").close()
                if i % 10 == 0:
                    await gopoll.gosched()

        async def pipes():
            while not stop:
                with pipe() as (r, w):
                    g = gopoll.go(r.read, 1)
                    await gopoll.gosched()
                    await w.write(b"x")
                    assert await g == b"x"

        others = [gopoll.go(pipes) for _ in range(2)]
        await opens()
        stop = True
        for g in others:
            await g

    run(main)


IN_A_NAMESPACE = """
import ctypes, fcntl, os, socket, struct, subprocess
import gopoll
from gopoll._fd import FD
from gopoll.runtime._sched import current_poller

CLONE_NEWNET, TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x40000000, 0x400454CA, 1, 0x1000
libc = ctypes.CDLL(None, use_errno=True)
assert libc.unshare(CLONE_NEWNET) == 0
number = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
fcntl.ioctl(number, TUNSETIFF, struct.pack("16sH22x", b"gopoll0", IFF_TUN | IFF_NO_PI))
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
    SIOCSIFADDR, SIOCSIFNETMASK, SIOCSIFFLAGS, UP = 0x8916, 0x891C, 0x8914, 0x41
    for call, address in ((SIOCSIFADDR, "10.9.8.1"), (SIOCSIFNETMASK, "255.255.255.0")):
        inet = struct.pack("=HH4s8x", socket.AF_INET, 0, socket.inet_aton(address))
        fcntl.ioctl(s, call, struct.pack("16s16s8x", b"gopoll0", inet))
    fcntl.ioctl(s, SIOCSIFFLAGS, struct.pack("16sH22x", b"gopoll0", UP))

def checksum(data):
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF

async def main():
    fd = FD(number, "tun", file=True)
    fd.init(current_poller())
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.bind(("10.9.8.1", 5000))
        s.settimeout(10)
        async def packet():
            while True:
                data = await fd.read(2000)
                if data[0] >> 4 == 4 and data[9] == 17:
                    return data
        g = gopoll.go(packet)
        while g.state != "waiting":
            await gopoll.gosched()
        s.sendto(b"to the tun", ("10.9.8.2", 6000))
        data = await g
        assert data[28:] == b"to the tun", data
        udp = struct.pack("!HHHH", 6000, 5000, 8 + 4, 0) + b"back"
        head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), 0, 0, 64, 17, 0,
                           socket.inet_aton("10.9.8.2"), socket.inet_aton("10.9.8.1"))
        head = head[:10] + struct.pack("!H", checksum(head)) + head[12:]
        assert await fd.write(head + udp) == len(head + udp)
        assert s.recvfrom(99) == (b"back", ("10.9.8.2", 6000))
        fd.set_read_deadline(-1)
        try:
            await fd.read(1)
        except TimeoutError as exc:
            print(exc)
    fd.close()

gopoll.run(main)
"""


def may_unshare():
    code = "import ctypes, sys; sys.exit(ctypes.CDLL(None).unshare(0x40000000) != 0)"
    return may_open_tun() and run_python(code).returncode == 0


@pytest.mark.skipif(not may_unshare(), reason="no network namespace of its own here")
def test_a_tun_carries_packets(run):
    done = run_python(IN_A_NAMESPACE)
    assert (done.stdout, done.stderr) == ("read tun: i/o timeout\n", "")
