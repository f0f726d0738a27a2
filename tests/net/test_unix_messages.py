"""Unix sockets: datagrams, descriptors that are passed, credentials."""

import array
import errno
import fcntl
import os
import resource
import socket

import pytest

import gopoll
from gopoll.errors import ClosedError, OpError
from gopoll.net.dial import Dialer, dial
from gopoll.net.file import from_socket
from gopoll.net.listen import listen, listen_packet
from gopoll.runtime.goroutine import go
from net.tools import open_fds, parked, short_folder, unix_pair

NETWORKS = ["unix", "unixpacket", "unixgram"]


@pytest.fixture
def path():
    with short_folder() as folder:
        yield os.path.join(folder, "s")


def pair_of(network):
    """Return two connected UnixConns of any kind, as socketpair makes them."""
    kind = {
        "unix": socket.SOCK_STREAM,
        "unixpacket": socket.SOCK_SEQPACKET,
        "unixgram": socket.SOCK_DGRAM,
    }[network]
    return tuple(map(from_socket, socket.socketpair(socket.AF_UNIX, kind)))


# -- datagrams


def test_datagrams_go_to_whom_they_are_for(run, path):
    """Row 82."""

    async def main():
        async with await listen_packet("unixgram", path) as a:
            async with await listen_packet("unixgram", "@" + path) as b:
                assert await a.write_to(b"ping", b.local_addr) == 4
                assert await b.read_from() == (b"ping", path)
                assert await b.write_to(b"pong", path) == 4
                buffer = bytearray(8)
                assert await a.readinto_from(buffer) == (4, "@" + path)
                assert await a.sendmsg([b"one ", b"two"], addr=b.local_addr) == 7
                assert await b.recvmsg(20) == (b"one two", [], 0, path)

    run(main)


def test_a_sender_without_a_name_has_no_address(run, path):
    async def main():
        async with await listen_packet("unixgram", path) as a:
            async with await dial("unixgram", path) as b:
                assert (b.local_addr, b.remote_addr) == ("", path)
                await b.write(b"who?")
                assert await a.read_from() == (b"who?", None)
                await b.write(b"")
                assert await a.recvmsg(9) == (b"", [], 0, None)
            async with await Dialer(local_addr=path + "c").dial("unixgram", path) as c:
                await c.write(b"me")
                assert await a.read_from() == (b"me", path + "c")
                await a.write_to(b"you", path + "c")
                assert await c.read() == b"you"

    run(main)


def test_who_has_a_peer_writes_to_no_other(run, path):
    """Row 91."""

    async def main():
        async with await listen_packet("unixgram", path) as a:
            async with await dial("unixgram", path) as b:
                with pytest.raises(OpError, match="use of write_to with pre-connected connection"):
                    await b.write_to(b"x", path)
                await b.write(b"y")
                assert await a.read() == b"y"
            with pytest.raises(OpError, match=r"^write unixgram .*: .*(required|not connected)$"):
                await a.write(b"x")
            with pytest.raises(OpError, match="no such file or directory"):
                await a.write_to(b"x", path + "nobody")
        async with unix_pair() as (c, _):
            with pytest.raises(OpError, match="use of write_to with pre-connected connection"):
                await c.write_to(b"x", path)

    run(main)


def test_a_full_receiver_is_waited_for(run, path):
    async def main():
        async with await listen_packet("unixgram", path) as a:
            async with await dial("unixgram", path) as b:

                async def flood():
                    for i in range(2000):
                        await b.write(i.to_bytes(4, "big"))

                g = go(flood)
                await parked(g, reason="write")
                for i in range(2000):
                    assert await a.read() == i.to_bytes(4, "big")
                await g

    run(main)


@pytest.mark.parametrize("network", ["unix", "unixpacket"])
def test_the_end_of_a_stream_has_no_bytes_and_no_address(run, network):
    """Row 94."""

    async def main():
        for read in ("read", "read_from", "recvmsg"):
            a, b = pair_of(network)
            async with a, b:
                a.close()
                if read == "read":
                    assert await b.read() == b""
                elif read == "read_from":
                    data, addr = await b.read_from()
                    assert (data, addr or None) == (b"", None)
                else:
                    data, anc, flags, addr = await b.recvmsg(10, 100)
                    assert (data, anc, addr or None) == (b"", [], None)
                    assert not flags & socket.MSG_CTRUNC

    run(main)


@pytest.mark.parametrize("network", ["unix", "unixpacket"])
def test_the_sides_can_be_closed_one_by_one(run, network):
    """Rows 48, 49 and 52."""

    async def main():
        a, b = pair_of(network)
        async with a, b:
            g = go(a.read)
            await parked(g, reason="read")
            a.close_read()
            assert await g == b""
            assert await a.read() == b""
            a.close_write()
            assert await b.read() == b""
            for conn, text in ((a, "broken pipe"), (b, "broken pipe")):
                with pytest.raises(BrokenPipeError, match=text):
                    await conn.write(b"x")
            for close in (a.close_read, a.close_write):
                for _ in range(3):
                    close()
            a.close()
            for close in (a.close_read, a.close_write):
                with pytest.raises(ClosedError, match=f"^close {network}: use of closed network"):
                    close()

    run(main)


# -- descriptors


@pytest.mark.parametrize("network", NETWORKS)
def test_descriptors_can_be_passed(run, network):
    """Row 96: what comes in is closed on exec."""

    async def main():
        a, b = pair_of(network)
        async with a, b:
            r, w = os.pipe()
            with open(w, "wb", buffering=0) as file:
                assert await a.send_fds(b"here", [r, file]) == 4
                os.close(r)
            data, fds = await b.recv_fds(10, 4)
            assert data == b"here"
            assert len(fds) == 2
            for fd in fds:
                assert fcntl.fcntl(fd, fcntl.F_GETFD) & fcntl.FD_CLOEXEC
                assert not os.get_inheritable(fd)
            os.write(fds[1], b"through the pipe")
            assert os.read(fds[0], 20) == b"through the pipe"
            for fd in fds:
                os.close(fd)

    run(main)


def test_recvmsg_closes_on_exec_too(run):
    """Row 96."""

    async def main():
        a, b = pair_of("unix")
        async with a, b:
            rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0]))
            await a.sendmsg([b"x"], [rights])
            _, [(_, _, content)], _, _ = await b.recvmsg(1, socket.CMSG_SPACE(4))
            fd = int.from_bytes(content, "little")
            assert not os.get_inheritable(fd)
            os.close(fd)

    run(main)


def test_no_descriptors_are_a_plain_message(run):
    async def main():
        a, b = pair_of("unix")
        async with a, b:
            assert await a.send_fds(b"plain", []) == 5
            assert await b.recv_fds(10, 0) == (b"plain", [])
            with pytest.raises(ValueError, match="send at least one"):
                await a.send_fds(b"", [0])
            a.close()
            assert await b.recv_fds(10, 1) == (b"", [])

    run(main)


@pytest.mark.parametrize("maxfds", [0, 1, 2])
def test_more_descriptors_than_wanted_are_an_error_and_none_stays_open(run, maxfds):
    async def main():
        a, b = pair_of("unix")
        async with a, b:
            before = open_fds()
            await a.send_fds(b"three", [0, 1, 2])
            with pytest.raises(OpError) as caught:
                await b.recv_fds(10, maxfds)
            assert caught.value.errno == errno.EMFILE
            assert f"more than maxfds={maxfds} came" in str(caught.value)
            assert open_fds() == before
            await a.send_fds(b"one", [0])
            data, fds = await b.recv_fds(10, 1)
            assert (data, len(fds)) == (b"one", 1)
            os.close(fds[0])

    run(main)


@pytest.mark.parametrize("maxfds", [0, 2, 253])
def test_credentials_that_come_too_take_no_room_from_descriptors(run, maxfds):
    """Where SO_PASSCRED is on, on the sender's side or here, they come first."""

    def ask(fd):
        s = socket.socket(fileno=fd)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        s.detach()

    async def main():
        a, b = pair_of("unix")
        async with a, b:
            b.raw_control(ask)
            before = open_fds()
            sent = min(maxfds, 60)
            await a.send_fds(b"data", [0] * sent)
            data, fds = await b.recv_fds(10, maxfds)
            assert (data, len(fds)) == (b"data", sent)
            for fd in fds:
                os.close(fd)
            await a.send_fds(b"data", [0] * (sent + 1))
            if sent == maxfds:
                with pytest.raises(OpError, match=f"more than maxfds={maxfds} came"):
                    await b.recv_fds(10, maxfds)
                assert open_fds() == before
            else:
                for fd in (await b.recv_fds(10, maxfds))[1]:
                    os.close(fd)

    run(main)


def test_no_room_for_descriptors_is_the_same_error(run):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)

    async def main():
        a, b = pair_of("unix")
        async with a, b:
            await a.send_fds(b"two", [0, 1])
            before = open_fds()
            lowest = os.dup(0)
            os.close(lowest)
            resource.setrlimit(resource.RLIMIT_NOFILE, (lowest + 1, hard))
            try:
                with pytest.raises(OpError, match="RLIMIT_NOFILE is reached"):
                    await b.recv_fds(10, 2)
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            assert open_fds() == before

    run(main)


@pytest.mark.parametrize("room", [1, 2])
def test_a_process_descriptor_that_there_is_no_room_for_is_left_out(run, room):
    """Where SO_PASSPIDFD is on and descriptors run out after those that were sent, the kernel
    gives an errno in its place.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    so_passpidfd = 76

    async def main():
        a, b = pair_of("unix")
        async with a, b:
            try:
                b._set_option(lambda s: s.setsockopt(socket.SOL_SOCKET, so_passpidfd, 1))
            except OpError:
                pytest.skip("no SO_PASSPIDFD on this machine")
            before = open_fds()
            await a.send_fds(b"one", [0])
            lowest = os.dup(0)
            os.close(lowest)
            resource.setrlimit(resource.RLIMIT_NOFILE, (lowest + room, hard))
            try:
                data, fds = await b.recv_fds(10, 1)
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            assert (data, len(fds)) == (b"one", 1)
            os.close(fds[0])
            assert open_fds() == before

    run(main)


def test_what_fails_on_the_way_leaves_no_descriptor_open(run, monkeypatch):
    """Such as a lack of memory between the system call and the result."""

    class Failing:
        size = 4

        def iter_unpack(self, content):
            monkeypatch.undo()
            raise MemoryError

    async def main():
        a, b = pair_of("unix")
        async with a, b:
            before = open_fds()
            await a.send_fds(b"x", [0, 1])
            monkeypatch.setattr("gopoll.net.unix._INT", Failing())
            with pytest.raises(MemoryError):
                await b.recv_fds(10, 2)
            assert open_fds() == before

    run(main)


def test_a_cancelled_receive_leaves_the_descriptors_for_the_next(run):
    async def main():
        a, b = pair_of("unix")
        async with a, b:
            before = open_fds()
            g = go(b.recv_fds, 10, 1)
            await parked(g, reason="read")
            g.cancel()
            with pytest.raises(gopoll.Canceled):
                await g
            await a.send_fds(b"x", [0])
            assert open_fds() == before
            data, fds = await b.recv_fds(10, 1)
            assert data == b"x"
            os.close(fds[0])

    run(main)


@pytest.mark.parametrize(
    ("maxfds", "error", "text"),
    [
        (-1, ValueError, "maxfds must be 0 to 253, not -1"),
        (254, ValueError, "maxfds must be 0 to 253, not 254"),
        (True, TypeError, "maxfds must be an int, not bool"),
    ],
)
def test_a_number_of_descriptors_that_makes_no_sense_is_refused(run, maxfds, error, text):
    async def main():
        a, b = pair_of("unix")
        async with a, b:
            with pytest.raises(error) as caught:
                await b.recv_fds(1, maxfds)
            assert str(caught.value) == text

    run(main)


# -- credentials


def test_each_end_knows_who_the_other_is(run, path):
    async def main():
        me = (os.getpid(), os.getuid(), os.getgid())
        async with await listen("unix", path) as ln:
            async with await dial("unix", path) as a, await ln.accept() as b:
                for conn in (a, b):
                    found = conn.peer_credentials()
                    assert found == me
                    assert (found.pid, found.uid, found.gid) == me
            with pytest.raises(ClosedError, match=r"^get unix.*: use of closed network"):
                a.peer_credentials()
        async with await listen_packet("unixgram", "@" + path) as conn:
            assert conn.peer_credentials() == (0, -1, -1)

    run(main)
