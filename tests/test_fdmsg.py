"""Datagrams and messages: addresses, ancillary data, descriptors that are passed.

Go: net/udpsock_test.go, net/unixsock_test.go, net/timeout_test.go; rows 41, 90-92, 94, 96.
How an operation is left is in test_fdop_kinds.py.
"""

import array
import contextlib
import errno
import gc
import os
import random
import socket
import struct
import sys

import pytest

import gopoll
from gopoll import AddrError, Canceled, ClosedError, OpError
from helpers.child import open_fds
from helpers.fds import (
    MORE_THAN_FITS,
    AnyFD,
    adopt,
    drain,
    half_pair,
    message,
    parked,
    tcp_pair,
)
from helpers.polls import Waiter, references

RIGHTS = socket.SOL_SOCKET, socket.SCM_RIGHTS
INT = array.array("i").itemsize
DGRAM = socket.AF_UNIX, socket.SOCK_DGRAM

needs_ipv6 = pytest.mark.skipif(
    not os.path.exists("/proc/net/if_inet6"), reason="no IPv6 on this machine"
)


def udp(family=socket.AF_INET, **kind):
    """Return a registered UDP FD that is bound to loopback, and its address."""
    sock = socket.socket(family, socket.SOCK_DGRAM)
    if family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    sock.bind(("::1" if family == socket.AF_INET6 else "127.0.0.1", 0))
    name = sock.getsockname()[:2]
    fd = message(sock, "udp", **kind)
    fd.set_addrs(name, None)
    return fd, name


def connected_udp(address):
    """Return a registered UDP FD that is connected to *address*."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.connect(address)
    fd = message(sock, "udp")
    fd.set_addrs(fd.getsockname(), address)
    return fd


def unixgram(path=None):
    """Return a registered Unix datagram FD, bound to *path* if given."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    if path is not None:
        sock.bind(path)
    return message(sock, "unixgram")


def rights(*fds):
    """Return the ancillary data that passes *fds*."""
    return [(*RIGHTS, array.array("i", fds))]


def received(ancdata):
    """Return the descriptors in *ancdata*."""
    fds = array.array("i")
    for level, kind, data in ancdata:
        if (level, kind) == RIGHTS:
            fds.frombytes(data[: len(data) - len(data) % INT])
    return list(fds)


def room(fds):
    return socket.CMSG_SPACE(fds * INT)


# -- datagrams and their addresses -----------------------------------------------------------------

READERS = {
    "read_from": lambda fd, n: fd.read_from(n),
    "recvmsg": lambda fd, n: fd.recvmsg(n),
    "readinto_from": lambda fd, n: fd.readinto_from(bytearray(n)),
}


async def read_with(how, fd, n=100):
    """Return (bytes, address) by way of one of the three."""
    if how == "readinto_from":
        buffer = bytearray(n)
        count, address = await fd.readinto_from(buffer)
        return bytes(buffer[:count]), address
    data, *_, address = await READERS[how](fd, n)
    return data, address


@pytest.mark.parametrize("how", READERS)
@pytest.mark.parametrize(
    "family", [socket.AF_INET, pytest.param(socket.AF_INET6, marks=needs_ipv6)]
)
def test_a_datagram_comes_with_its_sender_s_address_and_goes_back_there(run, how, family):
    async def main():
        (a, a_name), (b, b_name) = udp(family), udp(family)
        reader = await parked(read_with, how, a)
        assert await b.write_to(b"ping", a_name) == 4
        data, sender = await reader
        assert (data, sender) == (b"ping", b_name)
        assert await a.sendmsg([b"po", b"ng"], addr=sender) == 4
        assert await read_with(how, b) == (b"pong", a_name)
        a.close()
        b.close()

    run(main)


@needs_ipv6
@pytest.mark.parametrize("how", READERS)
def test_an_ipv4_peer_of_a_dual_stack_socket_has_an_ipv4_address(run, how):
    async def main():
        sock = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        sock.bind(("::", 0))
        port = sock.getsockname()[1]
        dual = message(sock, "udp")
        b, name = udp()
        await b.write_to(b"x", ("127.0.0.1", port))
        data, sender = await read_with(how, dual)
        assert (data, sender) == (b"x", name)
        await dual.write_to(b"y", sender)
        await dual.write_to(b"z", f"127.0.0.1:{name[1]}")
        assert await read_with(how, b) == (b"y", ("127.0.0.1", port))
        assert await read_with(how, b) == (b"z", ("127.0.0.1", port))
        dual.close()
        b.close()

    run(main)


@pytest.mark.parametrize("how", READERS)
def test_an_empty_datagram_is_data_and_not_the_end(run, how):
    """Row 90."""

    async def main():
        a, name = udp()
        b, b_name = udp()
        reader = await parked(read_with, how, a)
        assert await b.write_to(b"", name) == 0
        assert await reader == (b"", b_name)
        assert await b.sendmsg([], addr=name) == 0
        assert await b.sendmsg([b"", b""], addr=name) == 0
        await b.write_to(b"x", name)
        assert [(await read_with(how, a))[0] for _ in range(3)] == [b"", b"", b"x"]
        a.close()
        b.close()

    run(main)


@pytest.mark.parametrize("how", READERS)
def test_room_for_nothing_takes_a_datagram_all_the_same(run, how):
    """Row 90. On a stream reading nothing takes nothing; here there is no such shortcut."""

    async def main():
        a, name = udp()
        reader = await parked(read_with, how, a, 0)
        await a.write_to(b"first", name)
        assert await reader == (b"", name)
        await a.write_to(b"second", name)
        assert await read_with(how, a) == (b"second", name)
        a.close()

    run(main)


@pytest.mark.parametrize("how", READERS)
def test_what_is_longer_than_the_room_is_cut(run, how):
    """Row 90."""

    async def main():
        a, name = udp()
        await a.write_to(b"abcdef", name)
        await a.write_to(b"next", name)
        assert await read_with(how, a, 4) == (b"abcd", name)
        assert await read_with(how, a, 4) == (b"next", name)
        await a.write_to(b"abcdef", name)
        await a.write_to(b"abcd", name)
        assert (await a.recvmsg(4))[2] & socket.MSG_TRUNC
        assert not (await a.recvmsg(4))[2]
        await a.write_to(b"abcdef", name)
        data, _, flags, _ = await a.recvmsg(4, 0, socket.MSG_TRUNC | socket.MSG_PEEK)
        assert (data, flags & socket.MSG_TRUNC) == (b"abcd", socket.MSG_TRUNC), "not its length"
        assert (await a.read_from())[0] == b"abcdef", "it was peeked at"
        a.close()

    run(main)


@pytest.mark.parametrize("how", READERS)
@pytest.mark.parametrize("size", [1, 65507, 65536, 65537, 200_000])
def test_datagrams_of_any_size_and_room_come_whole(run, how, size):
    async def main():
        ours, peer = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        with peer:
            fd = message(ours, "unixgram")
            data = os.urandom(size)
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
            peer.send(data)
            peer.send(b"next")
            assert (await read_with(how, fd, size))[0] == data
            assert (await read_with(how, fd, 70_000))[0] == b"next"
            fd.close()

    run(main)


def test_the_default_room_takes_the_largest_udp_datagram(run):
    async def main():
        a, name = udp()
        data = os.urandom(65507)
        assert await a.write_to(data, name) == len(data)
        assert await a.read_from() == (data, name)
        for call in (a.read_from, a.recvmsg):
            with pytest.raises(ValueError, match="-1 bytes"):
                call(-1)
        for wrong in (-1, 1 << 31):
            with pytest.raises(ValueError, match="ancbufsize"):
                a.recvmsg(1, wrong)
        for call in (lambda: a.recvmsg(1, 0, 2.5), lambda: a.sendmsg([b"x"], (), 2.5, name)):
            with pytest.raises(TypeError, match=r"^flags must be an int, not float$"):
                call()
        a.close()

    run(main)


def test_unix_senders_have_a_path_a_name_or_none(run, tmp_path):
    async def main():
        paths = [os.fspath(tmp_path / "a"), "@gopoll-" + os.urandom(8).hex(), None]
        receiver = unixgram(os.fspath(tmp_path / "receiver"))
        for path in paths:
            name = "\0" + path[1:] if path and path[0] == "@" else path
            sender = unixgram(name)
            for to in (tmp_path / "receiver", os.fsencode(tmp_path / "receiver")):
                await sender.write_to(b"x", to)
                assert await receiver.read_from() == (b"x", path)
            await sender.sendmsg([b"y"], addr=os.fspath(tmp_path / "receiver"))
            assert (await receiver.recvmsg(9))[3] == path
            if path is not None:
                await receiver.write_to(b"back", path)
                assert (await sender.read_from())[0] == b"back"
            sender.close()
        receiver.close()

    run(main)


@pytest.mark.parametrize("how", READERS)
def test_the_end_of_a_unix_stream_is_empty(run, how):
    """Row 94."""

    async def main():
        with half_pair() as (fd, peer):
            peer.send(b"x")
            assert (await read_with(how, fd))[0] == b"x"
            reader = await parked(read_with, how, fd)
            peer.close()
            assert (await reader)[0] == b""

    run(main)


def test_records_of_a_seqpacket_socket_end_with_its_peer(run):
    async def main():
        ours, peer = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        fd = message(ours, "unixpacket")
        peer.send(b"abc")
        peer.send(b"de")
        data, _, flags, _ = await fd.recvmsg(2)
        assert (data, flags) == (b"ab", socket.MSG_TRUNC | socket.MSG_EOR) or flags & 32
        assert (await fd.recvmsg(2))[0] == b"de"
        assert await fd.sendmsg([b"x", b"y"]) == 2
        assert peer.recv(9) == b"xy"
        peer.close()
        assert (await fd.recvmsg(2))[0] == b""
        fd.close()

    run(main)


# -- errors ----------------------------------------------------------------------------------------


def test_a_connected_socket_takes_no_address(run):
    """Row 91."""

    async def main():
        a, name = udp()
        c = connected_udp(name)
        for op in (c.write_to(b"x", name), c.sendmsg([b"x"], addr=name)):
            with pytest.raises(
                OpError,
                match=r"^write udp 127\.0\.0\.1:\d+->127\.0\.0\.1:\d+: "
                r"use of write_to with pre-connected connection",
            ) as caught:
                await op
            assert (caught.value.errno, caught.value.written) == (errno.EISCONN, 0)
        assert await c.write(b"still works") == 11
        assert await c.sendmsg([b"this too"]) == 8
        assert [(await a.read_from())[0] for _ in range(2)] == [b"still works", b"this too"]
        c.close()
        a.close()

    run(main)


def test_an_unconnected_socket_needs_an_address(run):
    async def main():
        a, _ = udp()
        with pytest.raises(
            OpError, match=r"^write udp [\d.:]+: sendmsg: destination address required$"
        ):
            await a.sendmsg([b"x"])
        with pytest.raises(AddrError, match=r"^write udp: missing address$"):
            a.write_to(b"x", None)
        with pytest.raises(AddrError, match=r"^write udp: address \[::1\]:1: non-IPv4 address$"):
            a.write_to(b"x", ("::1", 1))
        with pytest.raises(AddrError, match="look names up first"):
            a.sendmsg([b"x"], addr=("localhost", 1))
        with pytest.raises(TypeError):
            a.write_to("text", ("127.0.0.1", 1))
        a.close()

    run(main)


@pytest.mark.parametrize("how", ["write_to", "sendmsg", "write"])
def test_too_long_a_datagram_is_an_error_that_names_where_to(run, how):
    async def main():
        a, name = udp()
        data = bytes(65508)
        match how:
            case "write_to":
                op = a.write_to(data, name)
            case "sendmsg":
                op = a.sendmsg([data], addr=name)
            case "write":
                a.close()
                a, _ = udp()
                a.close()
                a = connected_udp(name)
                op = a.write(data)
        call = "sendto" if how == "write_to" else how
        where = rf"127\.0\.0\.1:\d+->127\.0\.0\.1:{name[1]}"
        with pytest.raises(
            OpError, match=rf"^write udp {where}: {call}: message too long$"
        ) as caught:
            await op
        assert (caught.value.errno, caught.value.written) == (errno.EMSGSIZE, 0)
        assert caught.value.addr == name
        a.close()

    run(main)


@pytest.mark.parametrize("how", [*READERS, "read"])
def test_a_refused_datagram_is_an_error_once_of_what_comes_next(run, how):
    """ECONNREFUSED of a connected UDP socket, whoever waits."""

    async def main():
        a, name = udp()
        a.close()
        c = connected_udp(name)
        reader = await parked(c.read, 9) if how == "read" else await parked(read_with, how, c)
        await c.write(b"anybody there?")
        with pytest.raises(ConnectionRefusedError, match=r"^read udp .*: connection refused$"):
            await reader
        await c.write(b"x")
        with pytest.raises(ConnectionRefusedError, match=r"^write udp .*: connection refused$"):
            await c.sendmsg([b"y"])
        c.set_read_timeout(0.001)
        with pytest.raises((TimeoutError, ConnectionRefusedError)):
            await c.read(9)
        c.close()

    run(main)


def test_nobody_at_a_unix_address_is_an_error(run, tmp_path):
    async def main():
        fd = unixgram()
        path = os.fspath(tmp_path / "nobody")
        with pytest.raises(
            FileNotFoundError, match=rf"^write unixgram {path}: sendto: no such file"
        ):
            await fd.write_to(b"x", path)
        other = unixgram(path)
        other.close()
        with pytest.raises(ConnectionRefusedError):
            await fd.write_to(b"x", path)
        with pytest.raises(AddrError, match=r"path too long \(200 bytes, at most 107\)$"):
            fd.write_to(b"x", "x" * 200)
        fd.close()

    run(main)


def test_what_is_no_socket_has_no_messages(run):
    async def main():
        r, w = os.pipe2(os.O_NONBLOCK)
        fd = AnyFD(r, "pipe", file=True)
        with pytest.raises(OpError, match=r"^read pipe: socket operation on non-socket$"):
            await fd.read_from(1)
        with pytest.raises(OpError, match=r"^read pipe: socket operation on non-socket$"):
            await fd.recvmsg(1)
        with pytest.raises(OpError, match=r"^write pipe"):
            await fd.sendmsg([b"x"])
        fd.close()
        os.close(w)

    run(main)


# -- ancillary data --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_SEQPACKET])
def test_descriptors_are_passed_and_closed_on_exec(run, kind):
    """Row 96."""

    async def main():
        a, b = socket.socketpair(socket.AF_UNIX, kind)
        a, b = (adopt if kind == socket.SOCK_STREAM else message)(a, "unix"), message(b, "unix")
        reader = await parked(b.recvmsg, 9, room(2))
        with tempfile_of(b"one") as one, tempfile_of(b"two") as two:
            assert await a.sendmsg([b"he", b"re"], rights(one, two)) == 4
        data, ancdata, flags, _ = await reader
        assert (data, flags & socket.MSG_CTRUNC) == (b"here", 0)
        assert [(level, kind) for level, kind, _ in ancdata] == [RIGHTS]
        fds = received(ancdata)
        assert [os.pread(fd, 9, 0) for fd in fds] == [b"one", b"two"]
        assert [os.get_inheritable(fd) for fd in fds] == [False, False]
        for fd in fds:
            os.close(fd)
        a.close()
        b.close()

    run(main)


@contextlib.contextmanager
def tempfile_of(content):
    """Give a descriptor of a file in memory."""
    fd = os.memfd_create("gopoll-test")
    try:
        os.write(fd, content)
        yield fd
    finally:
        os.close(fd)


def test_descriptors_without_room_are_closed_and_say_so(run):
    async def main():
        with half_pair() as (fd, peer), tempfile_of(b"") as number:
            before = open_fds()
            for fds, space in [(1, 0), (3, room(0)), (3, socket.CMSG_LEN(INT))]:
                socket.send_fds(peer, [b"x"], [number] * fds)
                data, ancdata, flags, _ = await fd.recvmsg(1, space)
                assert data == b"x"
                assert flags & socket.MSG_CTRUNC
                for more in received(ancdata):
                    os.close(more)
                assert open_fds() == before
            socket.send_fds(peer, [b"x"], [number])
            assert await fd.read(9) == b"x"
            assert open_fds() == before, "a plain read closes them, as the kernel does"

    run(main)


def test_it_is_socket_recvmsg_in_shape(run):
    """The same message through the socket module, and credentials beside descriptors."""

    async def main():
        with half_pair() as (fd, peer), tempfile_of(b"") as number:
            with socket.socket(fileno=fd.dup()) as plain:
                plain.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
                answers = []
                for _ in range(2):
                    peer.sendmsg([b"data"], rights(number))
                    if not answers:
                        answers.append(plain.recvmsg(9, 200))
                    else:
                        answers.append(await fd.recvmsg(9, 200))
                for _, ancdata, _, _ in answers:
                    for more in received(ancdata):
                        os.close(more)
                (their_data, theirs, their_flags, _), (data, ours, flags, _) = answers

                def hide(items):
                    """The numbers of the descriptors differ."""
                    return [(*i[:2], i[2] if i[:2] != RIGHTS else 0) for i in items]

                assert (data, flags & ~socket.MSG_CMSG_CLOEXEC) == (their_data, their_flags)
                assert sorted(hide(ours)) == sorted(hide(theirs))
                assert len(ours) == 2
                credentials = {i[1]: i[2] for i in ours}[socket.SCM_CREDENTIALS]
                assert struct.unpack("iII", credentials) == (os.getpid(), os.getuid(), os.getgid())

    run(main)


def test_credentials_are_sent(run):
    async def main():
        with half_pair() as (fd, peer):
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
            mine = struct.pack("iII", os.getpid(), os.getuid(), os.getgid())
            with tempfile_of(b"") as number:
                what = [(socket.SOL_SOCKET, socket.SCM_CREDENTIALS, mine), *rights(number)]
                assert await fd.sendmsg([b"x"], iter(what)) == 1
            data, ancdata, _, _ = peer.recvmsg(9, 200)
            assert data == b"x"
            assert (socket.SOL_SOCKET, socket.SCM_CREDENTIALS, mine) in ancdata
            (passed,) = received(ancdata)
            os.close(passed)

    run(main)


def test_on_a_stream_descriptors_go_with_the_first_byte_alone(run):
    """However many pieces it leaves in; and all of it leaves."""

    async def main():
        with half_pair() as (fd, peer), tempfile_of(b"") as number:
            buffers = [MORE_THAN_FITS, b"the end"]
            sender = await parked(fd.sendmsg, buffers, rights(number))
            got, passed = bytearray(), []
            while not sender.done or len(got) < len(MORE_THAN_FITS) + 7:
                try:
                    data, ancdata, _, _ = peer.recvmsg(1 << 20, room(4))
                except BlockingIOError:
                    await gopoll.gosched()
                    continue
                if received(ancdata):
                    assert not got, "not with the first byte"
                passed += received(ancdata)
                got += data
            assert await sender == len(got) == len(MORE_THAN_FITS) + 7
            assert got.endswith(b"\0the end")
            assert len(passed) == 1
            os.close(passed[0])

    run(main)


def test_ancillary_data_that_makes_no_sense_is_refused_at_once(run):
    async def main():
        with half_pair() as (fd, peer), tempfile_of(b"") as number:
            with pytest.raises(ValueError, match="goes with a byte: send at least one"):
                fd.sendmsg([b""], rights(number))
            text = r"^ancillary data must be a list of tuples \(level, type, data\), two ints and"
            for wrong in ([1], [(1, 2)], [(1, 2, 3)], 5, [("a", 2, b"")], [(1, 2, "text")], "x"):
                with pytest.raises(TypeError, match=text):
                    fd.sendmsg([b"x"], wrong)
            with pytest.raises(OverflowError):
                fd.sendmsg([b"x"], [(1 << 40, 0, b"")])
            with pytest.raises(
                OpError, match=r"^write unix: sendmsg: bad file descriptor$"
            ) as caught:
                await fd.sendmsg([b"x"], rights(1 << 20))
            assert caught.value.written == 0
            assert await fd.sendmsg([b"x"], []) == 1
            assert drain(peer) == b"x"
        ours, peer = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        with peer, tempfile_of(b"") as number:
            fd = message(ours, "unixgram")
            assert await fd.sendmsg([], rights(number)) == 0
            data, ancdata, _, _ = peer.recvmsg(9, room(1))
            assert (data, len(received(ancdata))) == (b"", 1), "an empty datagram carries them"
            os.close(received(ancdata)[0])
            fd.close()

    run(main)


def test_out_of_band_data_and_flags_go_through(run):
    async def main():
        fd, peer = tcp_pair()
        assert await fd.sendmsg([b"ab"], (), socket.MSG_OOB) == 2
        assert peer.recv(9) == b"a"
        assert peer.recv(9, socket.MSG_OOB) == b"b"
        peer.send(b"cd")
        assert (await fd.recvmsg(1, 0, socket.MSG_PEEK))[0] == b"c"
        assert (await fd.recvmsg(9))[0] == b"cd"
        peer.close()
        fd.close()

    run(main)


# -- many at once ----------------------------------------------------------------------------------


def test_of_many_that_read_and_send_each_datagram_goes_to_one_and_whole(run):
    async def main():
        ours, peer = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        a, b = message(ours, "unixgram"), message(peer, "unixgram")
        got = []

        async def reads(how):
            for _ in range(50):
                got.append((await read_with(how, b, 2000))[0])

        async def sends(i):
            for k in range(50):
                text = f"{i}-{k} ".encode() * random.randrange(1, 100)
                await (a.sendmsg([text[:5], text[5:]]) if k % 2 else a.write(text))

        readers = [gopoll.go(reads, list(READERS)[i % 3]) for i in range(12)]
        writers = [gopoll.go(sends, i) for i in range(12)]
        for g in (*writers, *readers):
            await g
        words = [text.split() for text in got]
        assert all(len(set(w)) == 1 for w in words)
        assert sorted(w[0] for w in words) == sorted(
            f"{i}-{k}".encode() for i in range(12) for k in range(50)
        )
        a.close()
        b.close()

    run(main)


def drain_messages(fd):
    """Take every message that has come in."""
    out = []
    with contextlib.suppress(BlockingIOError), socket.socket(fileno=fd.dup()) as plain:
        while True:
            out.append(plain.recv(1 << 16, socket.MSG_DONTWAIT))
    return out


@pytest.mark.parametrize("how", ["write", "write_to", "sendmsg"])
def test_a_full_receiver_is_waited_for_without_spinning(run, tmp_path, how):
    async def main():
        receiver = unixgram(os.fspath(tmp_path / "receiver"))
        path = os.fspath(tmp_path / "receiver")
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        if how == "write":
            sock.connect(path)
        sender = message(sock, "unixgram")
        n = 2000  # more than any queue has room for

        async def send():
            for i in range(n):
                data = str(i).encode()
                if how == "write":
                    await sender.write(data)
                elif how == "sendmsg":
                    await sender.sendmsg([data], addr=path)
                else:
                    await sender.write_to(data, path)

        g = await parked(send)
        assert g.wait_reason == "write"
        seen = gopoll.stats().events
        await gopoll.sleep(0.05)
        assert gopoll.stats().events - seen < 1000, "it spins"
        late = await parked(send)  # queues behind it
        sender.set_write_timeout(-1)
        for waiter in (g, late):
            with pytest.raises(TimeoutError, match=r"^write unixgram.*: i/o timeout$"):
                await waiter
        sender.set_write_timeout(None)
        drain_messages(receiver)
        g = await parked(send)
        g.cancel()
        with pytest.raises(Canceled) as caught:
            await g
        assert caught.value.written == 0
        drain_messages(receiver)
        g = await parked(send)
        got = []
        while len(got) < n:
            got.append((await receiver.read_from())[0])
        assert got == [str(i).encode() for i in range(n)]
        await g
        g = await parked(send)
        sender.close()
        with pytest.raises(ClosedError):
            await g
        receiver.close()

    run(main)


def test_they_leave_no_reference_behind(run):
    async def main():
        a, name = udp()
        data, address = bytearray(b"x" * 10), (name[0], name[1])
        counts = []
        for how in [*READERS, "cancel"] * 3:
            before = sys.getrefcount(data), sys.getrefcount(address), sys.getrefcount(a)
            await a.write_to(data, address)
            await a.sendmsg([data], addr=address)
            if how == "cancel":
                drain(a)
                g = await parked(a.recvmsg, 9, 100)
                g.cancel()
                with pytest.raises(Canceled):
                    await g
                del g
            else:
                await read_with(how, a)
                await read_with(how, a)
            after = sys.getrefcount(data), sys.getrefcount(address), sys.getrefcount(a)
            counts.append(after == before)
        assert all(counts[4:]), counts
        data.append(0)
        a.close()
        with pytest.raises(ClosedError):
            await a.read_from()

    run(main, handoff=False)  # without a GIL, what another thread drops is counted later


def test_a_nap_that_is_dropped_gives_back_who_waited(run, tmp_path):
    """Where a coroutine is closed or dropped nobody aborts it: the reference is its own."""

    async def main():
        receiver = unixgram(os.fspath(tmp_path / "receiver"))
        sender = unixgram("")
        path = os.fspath(tmp_path / "receiver")
        with contextlib.suppress(BlockingIOError), socket.socket(*DGRAM) as other:
            other.setblocking(False)
            while True:
                other.sendto(b"x", path)
        waiter = Waiter("for the receiver")
        before, timers = references(waiter), gopoll.stats().timers
        op = sender.write_to(b"y", path)
        nap = next(op)
        assert nap.commit(waiter)
        assert gopoll.stats().timers == timers + 1
        assert references(waiter) > before
        op.close()
        del op, nap
        gc.collect()
        assert gopoll.stats().timers == timers
        assert references(waiter) == before
        sender.close()
        receiver.close()

    run(main, procs=1, handoff=False)
