"""Descriptors that somebody else has opened: what becomes of them, and whose they are."""

import contextlib
import errno
import os
import pty
import socket
import ssl
import struct
import threading

import pytest

import gopoll
from gopoll.errors import ClosedError, NotPollableError, OpError
from gopoll.net.conn import TCPConn
from gopoll.net.dial import dial
from gopoll.net.file import File, from_fd, from_socket, open_fd
from gopoll.net.listen import listen_packet
from gopoll.net.listener import TCPListener
from gopoll.net.udp import UDPConn
from gopoll.net.unix import UnixConn, UnixListener
from gopoll.runtime.goroutine import go
from net.tools import (
    local_listener,
    needs_ipv6,
    open_fds,
    option,
    pair,
    parked,
    short_folder,
)
from runtime.tools import said

INET, INET6, UNIX = socket.AF_INET, socket.AF_INET6, socket.AF_UNIX
STREAM, DGRAM, PACKET = socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_SEQPACKET


def bound(family, kind, listening=False):
    s = socket.socket(family, kind)
    s.bind("" if family == UNIX else ("127.0.0.1" if family == INET else "::1", 0))
    if listening:
        s.listen()
    return s


# -- sockets


@pytest.mark.parametrize(
    ("family", "kind", "listening", "cls", "network"),
    [
        (INET, STREAM, True, TCPListener, "tcp"),
        pytest.param(INET6, STREAM, True, TCPListener, "tcp", marks=needs_ipv6),
        (INET, STREAM, False, TCPConn, "tcp"),
        (INET, DGRAM, False, UDPConn, "udp"),
        (UNIX, STREAM, True, UnixListener, "unix"),
        (UNIX, PACKET, True, UnixListener, "unixpacket"),
        (UNIX, STREAM, False, UnixConn, "unix"),
        (UNIX, PACKET, False, UnixConn, "unixpacket"),
        (UNIX, DGRAM, False, UnixConn, "unixgram"),
    ],
)
def test_the_kernel_says_what_a_socket_is(run, family, kind, listening, cls, network):
    async def main():
        s = bound(family, kind, listening)
        name, fd = s.getsockname()[:2] if family != UNIX else s.getsockname(), s.fileno()
        conn = from_socket(s)
        assert s.fileno() == -1
        async with conn:
            assert type(conn) is cls
            assert conn.network == network
            assert conn.fileno() == fd
            shown = "@" + name[1:].decode() if family == UNIX else name
            assert conn.local_addr == shown
            assert conn.remote_addr is None
            assert not os.get_blocking(fd)
            assert not os.get_inheritable(fd)

    run(main)


def test_bytes_go_through_both_ends_of_a_pair(run):
    async def main():
        for kind in (STREAM, DGRAM, PACKET):
            s, t = socket.socketpair(UNIX, kind)
            async with from_fd(s.detach()) as a, from_fd(t.detach()) as b:
                assert (a.local_addr, a.remote_addr) == ("", "")
                await a.write(b"ping")
                assert await b.read() == b"ping"
                g = go(a.read)
                await parked(g, reason="read")
                await b.write(b"pong")
                assert await g == b"pong"

    run(main)


def test_a_connection_of_the_socket_module_goes_on(run):
    async def main():
        async with local_listener() as ln:
            conn = from_socket(socket.create_connection(ln.addr))
            async with conn, await ln.accept() as peer:
                assert (conn.local_addr, conn.remote_addr) == (peer.remote_addr, ln.addr)
                await conn.write(b"x")
                assert await peer.read() == b"x"

    run(main)


def test_a_tcp_socket_gets_the_options_of_one_that_was_dialled(run):
    """Go's FileConn and FileListener set them too."""

    async def main():
        async with from_socket(socket.create_server(("127.0.0.1", 0))) as ln:
            conn = from_socket(socket.create_connection(ln.addr))
            async with conn, await ln.accept() as peer:
                for each in (conn, peer):
                    assert option(each, socket.IPPROTO_TCP, socket.TCP_NODELAY)
                    assert option(each, socket.SOL_SOCKET, socket.SO_KEEPALIVE)
                    assert option(each, socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 15

    run(main)


def test_a_default_timeout_of_the_socket_module_changes_nothing(run):
    """socket.socket(fileno=...) sets O_NONBLOCK by it, and an error must leave it as it was."""

    async def main():
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW) as s:
            socket.setdefaulttimeout(5)
            try:
                with pytest.raises(OpError):
                    from_fd(s.fileno())
            finally:
                socket.setdefaulttimeout(None)
            assert os.get_blocking(s.fileno())

    run(main)


def test_a_forked_child_takes_a_listener_over():
    """A9: detach works there, and what it gives is good for a run of the child's own."""
    lines = said(
        """
        async def serve(ln):
            async with gopoll.from_fd(ln.detach(), exclusive=True) as mine:
                async with await mine.accept() as conn:
                    await conn.write(b"from the child")

        async def main():
            gopoll.lock_os_thread()  # the one that forks is all that the child has
            ln = await gopoll.listen("tcp", "127.0.0.1:0", exclusive=True)
            pid = os.fork()
            if pid == 0:
                listener.append(ln)
                return
            await ln.close()  # or the wake-up could come here
            async with await gopoll.dial("tcp", ln.addr) as conn:
                say((await conn.read()).decode())
            say(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))

        listener = []
        try:
            gopoll.run(main)
        except gopoll.ForkedError:
            gopoll.run(serve, listener[0])
            os._exit(0)
        """
    )
    assert lines == ["from the child", "0"]


def test_a_listener_of_the_socket_module_accepts(run):
    async def main():
        async with from_socket(socket.create_server(("127.0.0.1", 0))) as ln:
            async with await dial("tcp", ln.addr), await ln.accept() as peer:
                assert peer.local_addr == ln.addr
        with short_folder() as folder, socket.socket(UNIX) as s:
            path = os.path.join(folder, "s")
            s.bind(path)
            s.listen()
            async with from_socket(s) as ln:
                async with await dial("unix", path), await ln.accept() as peer:
                    assert isinstance(peer, UnixConn)
            assert os.path.exists(path)  # row 93: who made it removes it
            os.unlink(path)

    run(main)


def test_a_listener_from_elsewhere_removes_its_path_if_told(run):
    """Row 93."""

    async def main():
        with short_folder() as folder, socket.socket(UNIX) as s:
            path = os.path.join(folder, "s")
            s.bind(path)
            s.listen()
            async with from_fd(s.fileno(), dup=True) as ln:
                ln.set_unlink_on_close(True)
            assert not os.path.exists(path)

    run(main)


def test_a_copy_leaves_the_caller_his_own(run):
    """Row 93 too: closing one of two listeners on a path."""

    async def main():
        async with local_listener() as ln:
            async with from_fd(ln.fileno(), dup=True) as other:
                assert other.fileno() != ln.fileno()
                ln.close()
                async with await dial("tcp", other.addr), await other.accept():
                    pass

    run(main)


def test_a_descriptor_has_one_connection(run):
    async def main():
        async with pair() as (a, b):
            with pytest.raises(OpError) as caught:
                from_fd(a.fileno())
            assert caught.value.errno == errno.EEXIST
            assert str(caught.value) == (
                "file tcp: file exists (a connection of this run has it already; use dup=True)"
            )
            await a.write(b"still works")
            assert await b.read() == b"still works"

    run(main)


def bad_fd():
    fd = os.dup(0)
    os.close(fd)
    return fd


def test_what_is_no_socket_of_ours_stays_the_caller_s(run):
    async def main():
        r, w = os.pipe()
        for fd in (r, w):
            with pytest.raises(OpError) as caught:
                from_fd(fd)
            assert caught.value.errno == errno.ENOTSOCK
            text = "file: socket operation on non-socket (open_fd takes any descriptor)"
            assert str(caught.value) == text
            assert os.get_blocking(fd)
            os.close(fd)
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW) as s:
            with pytest.raises(OpError, match=r"^file: protocol not supported \(open_fd takes"):
                from_socket(s)
            assert s.fileno() >= 0
            assert s.getblocking()
        with pytest.raises(OpError, match=r"^file: bad file descriptor$"):
            from_fd(bad_fd())

    run(main)


class NotRegistered(TCPConn):
    def init(self, poller, exclusive=False):
        raise OpError("open", "tcp", err=errno.ENOSPC)


@pytest.mark.parametrize("dup", [False, True])
def test_on_an_error_the_socket_is_as_it_was(run, monkeypatch, dup):
    async def main():
        monkeypatch.setattr("gopoll.net.file.TCPConn", NotRegistered)
        with socket.socket() as s:
            os.set_inheritable(s.fileno(), True)
            before = open_fds()
            with pytest.raises(OpError, match=r"^file tcp: no space left on device$"):
                from_fd(s.fileno(), dup=dup)
            with pytest.raises(OpError, match="no space left"):
                from_socket(s)
            assert open_fds() == before
            assert os.get_blocking(s.fileno())
            assert os.get_inheritable(s.fileno())

    run(main)


@pytest.mark.parametrize("dup", [False, True])
def test_what_fails_after_the_registration_leaves_the_socket_as_it_was(run, monkeypatch, dup):
    def no_memory(conn):
        raise MemoryError

    async def main():
        with socket.socket() as s:
            before = open_fds()
            with monkeypatch.context() as patch:
                patch.setattr("gopoll.net.file.local_name", no_memory)
                with pytest.raises(MemoryError):
                    from_fd(s.fileno(), dup=dup)
            assert open_fds() == before
            assert os.get_blocking(s.fileno())
            from_fd(s.fileno(), dup=True).close()  # nor is it registered any more

    run(main)


def test_arguments_that_make_no_sense_are_refused(run):
    async def main():
        for call in (from_fd, open_fd):
            for fd in ("0", True, None):
                with pytest.raises(TypeError, match="fd must be an int, not "):
                    call(fd)
        with pytest.raises(TypeError, match=r"sock must be a socket.socket, not int"):
            from_socket(5)
        s = socket.socket()
        with pytest.raises(ValueError, match="exclusive is for listeners"):
            from_socket(s, exclusive=True)
        s.close()
        with pytest.raises(ValueError, match="sock is closed or detached"):
            from_socket(s)
        a, b = socket.socketpair()
        context = ssl.create_default_context()
        with (
            a,
            b,
            context.wrap_socket(a, do_handshake_on_connect=False, server_hostname="x") as wrapped,
        ):
            with pytest.raises(TypeError, match="not an SSLSocket"):
                from_socket(wrapped)

    run(main)


def test_outside_of_a_goroutine_nothing_is_taken():
    with socket.socket() as s:
        for call in (lambda: from_socket(s), lambda: from_fd(s.fileno())):
            with pytest.raises(RuntimeError):
                call()
        assert s.getblocking()


# -- file and detach


def test_a_copy_of_the_descriptor_is_the_caller_s(run):
    """Row 88: it stays non-blocking, and so does the connection."""

    async def main():
        async with pair() as (a, b), await listen_packet("udp", "127.0.0.1:0") as u:
            async with local_listener() as ln:
                for conn in (a, u, ln):
                    fd = conn.file()
                    assert fd != conn.fileno()
                    assert not os.get_blocking(fd)
                    assert not os.get_inheritable(fd)
                    assert os.fstat(fd).st_ino == os.fstat(conn.fileno()).st_ino
                    os.close(fd)
            fd = a.file()
            a.close()
            with socket.socket(fileno=fd) as s:
                s.send(b"through the copy")
                assert await b.read() == b"through the copy"
            assert await b.read() == b""
            with pytest.raises(ClosedError, match=r"^file tcp .*: use of closed network conn"):
                a.file()

    run(main)


def copy_until_closed(conn, start):
    start.wait()
    with contextlib.suppress(ClosedError):
        while True:
            os.close(conn.file())


def test_file_may_race_with_close(run):
    """Row 89."""

    def race(conn):
        start = threading.Barrier(3)
        threads = [threading.Thread(target=copy_until_closed, args=(conn, start)) for _ in range(2)]
        for thread in threads:
            thread.start()
        start.wait()
        conn.close()
        for thread in threads:
            thread.join()

    async def main():
        for _ in range(20):
            async with local_listener() as ln, await dial("tcp", ln.addr) as conn:
                await gopoll.blocking(race, conn)
                await (await ln.accept()).close()

    run(main)


def test_a_detached_descriptor_lives_on_without_the_connection(run):
    async def main():
        async with pair() as (a, b):
            reader = go(a.read)
            await parked(reader, reason="read")
            fd = a.detach()
            with pytest.raises(ClosedError):
                await reader
            assert a.is_closed
            await a.close()
            with pytest.raises(ClosedError):
                await a.write(b"x")
            with pytest.raises(ClosedError):
                a.detach()
            async with from_fd(fd) as again:
                await again.write(b"here I am")
                assert await b.read() == b"here I am"
        async with local_listener() as ln:
            fd = ln.detach()
            async with from_fd(fd) as again:
                async with await dial("tcp", again.addr), await again.accept():
                    pass

    run(main)


def test_a_unix_listener_that_is_detached_keeps_its_path(run):
    async def main():
        with short_folder() as folder:
            path = os.path.join(folder, "s")
            ln = await gopoll.listen("unix", path)
            fd = ln.detach()
            await ln.close()
            assert os.path.exists(path)
            async with from_fd(fd), await dial("unix", path):
                pass

    run(main)


# -- anything else


def test_a_pipe_is_read_and_written_under_deadlines(run):
    async def main():
        r, w = os.pipe()
        async with open_fd(r) as reader, open_fd(w) as writer:
            assert isinstance(reader, File)
            assert isinstance(reader, gopoll.Conn)
            assert not os.get_blocking(r)
            name = os.readlink(f"/proc/self/fd/{r}")
            assert repr(reader) == f"<File {name}>"
            g = go(reader.read)
            await parked(g, reason="read")
            await writer.write(b"through")
            assert await g == b"through"
            reader.set_read_timeout(0.01)
            with pytest.raises(TimeoutError) as caught:
                await reader.read()
            assert str(caught.value) == f"read file {name}: i/o timeout"
            reader.set_deadline(None)
            big = go(writer.write, bytes(1 << 20))
            await parked(big, reason="write")
            got = 0
            while got < 1 << 20:
                got += len(await reader.read(1 << 20))
            assert await big == 1 << 20
            assert await writer.writev([b"one ", b"two"]) == 7
            assert await gopoll.Reader(reader).read_exactly(7) == b"one two"
            writer.close()
            assert await reader.read() == b""
        with pytest.raises(ClosedError, match=r"^read file pipe:.*: use of closed file$"):
            await reader.read()
        assert repr(reader) == f"<File {name} closed>"

    run(main)


def test_a_pipe_without_a_reader_breaks(run):
    async def main():
        r, w = os.pipe()
        os.close(r)
        async with open_fd(w) as writer:
            with pytest.raises(BrokenPipeError, match=r"^write file pipe:.*: broken pipe$"):
                await writer.write(b"x")

    run(main)


def test_a_terminal_is_read_line_by_line(run):
    async def main():
        master, slave = pty.openpty()
        async with open_fd(slave) as tty, open_fd(master) as user:
            g = go(gopoll.Reader(tty).read_line)
            await parked(g, reason="read")
            await user.write(b"typed\n")
            assert await g == b"typed\n"

    run(main)


def test_an_eventfd_and_a_timerfd_are_waited_for(run):
    async def main():
        async with open_fd(os.eventfd(0)) as event:
            assert repr(event) == "<File anon_inode:[eventfd]>"
            g = go(event.read, 8)
            await parked(g, reason="read")
            await event.write(struct.pack("Q", 3))
            assert struct.unpack("Q", await g) == (3,)

    run(main)


def test_a_fifo_opened_by_name(run, tmp_path):
    os.mkfifo(tmp_path / "fifo")

    async def main():
        fd = os.open(tmp_path / "fifo", os.O_RDWR)
        async with open_fd(fd) as fifo:
            await fifo.write(b"round")
            assert await fifo.read() == b"round"
            with pytest.raises(OpError, match=r"^close file .*: socket operation on non-socket$"):
                fifo.close_write()

    run(main)


def test_proc_files_can_be_polled_and_read(run):
    """Row 24."""

    async def main():
        async with open_fd(os.open("/proc/self/mounts", os.O_RDONLY)) as file:
            assert await file.read(10)

    run(main)


@pytest.mark.parametrize("path", ["regular", "folder", "/dev/null"])
def test_what_is_always_ready_says_where_to_read_it(run, tmp_path, path):
    """Row 26."""
    (tmp_path / "regular").touch()
    (tmp_path / "folder").mkdir()
    path = str(tmp_path / path)

    async def main():
        fd = os.open(path, os.O_RDONLY)
        with pytest.raises(NotPollableError) as caught:
            open_fd(fd)
        assert str(caught.value) == (
            f"open file {path}: not pollable "
            "(regular files are always ready; read them in gopoll.blocking())"
        )
        assert os.get_blocking(fd)
        os.close(fd)
        with pytest.raises(OpError, match=r"^open file: bad file descriptor$"):
            open_fd(bad_fd())

    run(main)


def test_a_copy_of_a_pipe_leaves_the_caller_his_own(run):
    async def main():
        r, w = os.pipe()
        async with open_fd(r, dup=True) as reader:
            os.write(w, b"x")
            assert await reader.read() == b"x"
            assert not os.get_blocking(r)  # the flag is the pipe end's own, not the number's
        os.write(w, b"y")
        assert os.read(r, 1) == b"y"
        os.close(r)
        os.close(w)

    run(main)


def test_a_file_is_given_back_by_detach(run):
    async def main():
        r, w = os.pipe()
        reader = open_fd(r)
        assert reader.detach() == r
        os.write(w, b"x")
        assert os.read(r, 1) == b"x"
        os.close(r)
        os.close(w)

    run(main)
