"""Unix sockets: paths and abstract names, listeners and what becomes of their paths."""

import errno
import os
import pathlib

import pytest

import gopoll
from gopoll.errors import AddrError, ClosedError, OpError
from gopoll.net.dial import Dialer, dial
from gopoll.net.listen import listen, listen_packet
from gopoll.net.unix import UnixConn, UnixListener
from gopoll.runtime.goroutine import go
from net.tools import short_folder, sockets
from runtime.tools import said

STREAMS = ["unix", "unixpacket"]


@pytest.fixture
def path():
    with short_folder() as folder:
        yield os.path.join(folder, "s")


# -- listen and dial


@pytest.mark.parametrize("network", STREAMS)
@pytest.mark.parametrize("abstract", [False, True])
def test_bytes_go_both_ways(run, path, network, abstract):
    """Row 82."""
    address = "@" + path if abstract else path

    async def main():
        async with await listen(network, address) as ln:
            assert isinstance(ln, UnixListener)
            assert ln.addr == address
            assert repr(ln) == f"<UnixListener {network} {address}>"
            async with await dial(network, address) as a, await ln.accept() as b:
                for conn in (a, b):
                    assert isinstance(conn, UnixConn)
                    assert isinstance(conn, gopoll.PacketConn)
                    assert conn.network == network
                    assert not os.get_blocking(conn.fileno())
                    assert not os.get_inheritable(conn.fileno())
                assert (a.local_addr, a.remote_addr) == ("", address)
                assert (b.local_addr, b.remote_addr) == (address, "")
                await a.write(b"ping")
                assert await b.read() == b"ping"
                await b.write(b"pong")
                assert await a.read() == b"pong"
                a.close_write()
                assert await b.read() == b""
        assert not os.path.exists(path)

    run(main)


@pytest.mark.parametrize("network", STREAMS)
def test_three_servers_share_a_listener(run, path, network):
    """Row 82."""

    async def main():
        async def serve():
            async for conn in ln:
                async with conn:
                    await conn.write(await conn.read())

        async def ask(text):
            async with await dial(network, path) as conn:
                await conn.write(text)
                assert await conn.read() == text
                assert await conn.read() == b""

        async with await listen(network, path) as ln:
            servers = [go(serve) for _ in range(3)]
            for g in [go(ask, b"%d" % i) for i in range(30)]:
                await g
        for g in servers:
            await g

    run(main)


def test_packets_keep_their_bounds(run, path):
    async def main():
        async with await listen("unixpacket", path) as ln:
            async with await dial("unixpacket", path) as a, await ln.accept() as b:
                for data in (b"one", b"two"):
                    await a.write(data)
                assert await b.read() == b"one"
                assert await b.read(1) == b"t"  # the rest is lost
                a.close()
                assert await b.read() == b""

    run(main)


@pytest.mark.parametrize("network", ["unixpacket", "unixgram"])
def test_a_message_is_as_long_as_the_read_allows(run, path, network):
    """One of more than 64 KiB was cut, unless the read before had given much."""

    async def main():
        if network == "unixgram":
            b = await listen_packet(network, path)
            a = await dial(network, path)
        else:
            async with await listen(network, path) as ln:
                a = await dial(network, path)
                b = await ln.accept()
        async with a, b:
            for _ in range(2):
                await a.write(bytes(66_000))
                assert len(await b.read()) == 66_000

    run(main)


def test_a_dial_starts_from_its_local_address(run, path):
    """Row 62."""

    async def main():
        async with await listen("unix", path) as ln:
            for local in (path + "c", "@" + path, pathlib.Path(path + "d")):
                conn = await Dialer(local_addr=local).dial("unix", path)
                async with conn, await ln.accept() as peer:
                    assert conn.local_addr == peer.remote_addr == str(local)
            async with await Dialer(local_addr="").dial("unix", path) as conn, await ln.accept():
                assert conn.local_addr == ""
            with pytest.raises(OpError, match="address already in use") as caught:
                await Dialer(local_addr=path + "c").dial("unix", path)
            assert str(caught.value).startswith(f"dial unix {path}c->{path}: ")

    run(main)


def test_a_path_may_be_path_like(run, path):
    async def main():
        async with await listen("unix", pathlib.Path(path)) as ln:
            async with await dial("unix", pathlib.Path(path)), await ln.accept():
                assert ln.addr == path

    run(main)


def test_a_path_like_that_begins_with_an_at_sign_is_a_file(run, path, monkeypatch):
    monkeypatch.chdir(os.path.dirname(path))

    async def main():
        async with await listen("unix", pathlib.Path("@s")) as ln:
            assert os.path.exists("@s")
            async with await dial("unix", "./@s"), await ln.accept():
                pass

    run(main)


def test_a_name_of_bytes_that_are_no_text_comes_back_as_it_was(run, path):
    name = os.fsdecode(os.fsencode(path) + b"\xff\xe9")

    async def main():
        async with await listen("unix", name) as ln:
            assert ln.addr == name
            async with await dial("unix", name), await ln.accept() as peer:
                assert peer.local_addr == name
        async with await listen("unix", "@a\udcff\0b") as ln:
            async with await dial("unix", "\0a\udcff\0b") as conn, await ln.accept():
                assert conn.remote_addr == "@a\udcff\0b"

    run(main)


@pytest.mark.parametrize("network", STREAMS)
def test_the_kernel_gives_a_name_where_none_is_asked_for(run, network):
    """Row 95."""

    async def main():
        before = sockets()
        async with await listen(network, "") as ln:
            assert ln.addr.startswith("@")
            assert len(ln.addr) == 6
            async with await dial(network, ln.addr) as conn, await ln.accept():
                assert conn.remote_addr == ln.addr
        assert sockets() == before
        async with await listen_packet("unixgram", "") as conn:
            assert conn.local_addr.startswith("@")
            assert isinstance(conn, UnixConn)

    run(main)


@pytest.mark.parametrize("network", ["unix", "unixpacket", "unixgram"])
def test_an_abstract_name_may_be_108_bytes_long(run, network):
    """Row 95."""
    name = "@" + "x" * 107

    async def main():
        if network == "unixgram":
            async with await listen_packet(network, name) as ln, await dial(network, name) as conn:
                await conn.write(b"x")
                assert await ln.read() == b"x"
                assert ln.local_addr == conn.remote_addr == name
        else:
            async with await listen(network, name) as ln, await dial(network, name) as conn:
                await (await ln.accept()).close()
                assert ln.addr == conn.remote_addr == name

    run(main)


@pytest.mark.parametrize(
    ("address", "text"),
    [
        ("/" + "x" * 107, "path too long (108 bytes, at most 107)"),
        ("@" + "x" * 108, "name too long (109 bytes, at most 108)"),
        ("/x\0y", "NUL byte in path"),
        ("/\ud800", "path that no file can have"),
        (("127.0.0.1", 80), "unexpected address type (a Unix address is a path)"),
    ],
)
def test_what_is_no_path_says_why(run, address, text):
    async def main():
        for op, call in (("listen", listen), ("dial", dial)):
            with pytest.raises(AddrError) as caught:
                await call("unix", address)
            assert str(caught.value).startswith(f"{op} unix: address ")
            assert str(caught.value).endswith(f": {text}")
        with pytest.raises(TypeError, match="address must be the path of a Unix socket, not int"):
            await dial("unix", 7)

    run(main)


@pytest.mark.parametrize(
    ("network", "local", "text"),
    [
        ("unix", ("127.0.0.1", 0), "address 127.0.0.1:0: mismatched local address type"),
        ("unixgram", ("", 0), "address :0: mismatched local address type"),
        ("unix", "/x\0y", r"address /x\x00y: NUL byte in path"),
        ("tcp", "/run/x", "address /run/x: mismatched local address type"),
        ("udp", "@x", "address @x: mismatched local address type"),
    ],
)
def test_a_local_address_of_another_kind_is_refused(run, network, local, text):
    """Row 62."""

    async def main():
        address = "/run/y" if network.startswith("unix") else "127.0.0.1:1"
        with pytest.raises(AddrError) as caught:
            await Dialer(local_addr=local).dial(network, address)
        assert str(caught.value) == f"dial {network}: {text}"

    run(main)


def test_a_dial_that_nobody_answers_says_where(run, path):
    """Row 74."""

    async def main():
        before = sockets()
        with pytest.raises(FileNotFoundError) as caught:
            await dial("unix", path)
        assert isinstance(caught.value, OpError)
        assert str(caught.value) == f"dial unix {path}: connect: no such file or directory"
        assert (caught.value.source, caught.value.addr) == (None, path)
        with pytest.raises(OpError, match="missing address"):
            await Dialer(local_addr=path + "c").dial("unixgram", "")
        async with await listen("unix", path) as ln:
            with pytest.raises(
                OpError, match=f"^dial unixpacket {path}: connect: protocol wrong type for"
            ):
                await dial("unixpacket", path)
            ln.set_unlink_on_close(False)
        with pytest.raises(
            ConnectionRefusedError, match=f"^dial unix {path}: connect: connection refused$"
        ):
            await dial("unix", path)
        assert sockets() == before

    run(main)


def test_a_full_queue_is_an_error_with_a_remedy(run, path):
    async def main():
        async with await listen("unix", path, backlog=0):
            async with await dial("unix", path):
                with pytest.raises(BlockingIOError) as caught:
                    await dial("unix", path)
                assert caught.value.is_temporary
                assert str(caught.value).endswith(
                    "resource temporarily unavailable (the listener's queue is full; try again)"
                )

    run(main)


@pytest.mark.parametrize(
    ("network", "call", "remedy"),
    [
        ("udp", listen, "listen_packet"),
        ("unixgram", listen, "listen_packet"),
        ("tcp4", listen_packet, "listen"),
        ("unix", listen_packet, "listen"),
        ("unixpacket", listen_packet, "listen"),
    ],
)
def test_a_network_of_the_other_kind_says_which_function_to_use(run, network, call, remedy):
    async def main():
        with pytest.raises(AddrError) as caught:
            await call(network, "127.0.0.1:0")
        assert str(caught.value) == (
            f"listen {network}: address 127.0.0.1:0: unexpected address type (use {remedy})"
        )

    run(main)


def test_control_is_told_the_network_and_the_path(run, path):
    """Row 72."""
    seen = []

    def control(network, address, raw):
        raw.control(lambda fd: seen.append((network, address, os.get_blocking(fd))))

    async def main():
        async with await listen("unix", path, control=control):
            async with await Dialer(control=control).dial("unix", path):
                pass
        async with await listen_packet("unixgram", path + "g", control=control):
            pass

    run(main)
    assert seen == [("unix", path, False)] * 2 + [("unixgram", path + "g", False)]


def test_one_path_has_one_socket(run, path):
    async def main():
        with pytest.raises(ValueError, match="reuse_port is for tcp and udp"):
            await listen("unix", path, reuse_port=True)
        async with await listen("unix", path):
            before = sockets()
            with pytest.raises(
                OpError, match=f"^listen unix {path}: bind: address already in use$"
            ):
                await listen("unix", path)
            assert sockets() == before
            assert os.path.exists(path)

    run(main)


def test_a_path_that_is_taken_says_by_what(run, path):
    """One that a server has left behind is removed by hand; who lives hears nothing of the look."""

    async def main():
        taken = f"^listen unix {path}: bind: address already in use"
        stale = r" \(nobody has it open any more: remove the file\)$"
        for network in ("unix", "unixpacket"):
            async with await listen(network, path) as ln:
                with pytest.raises(OpError, match=taken + "$"):
                    await listen("unix", path)
                ln.set_unlink_on_close(False)
                ln.set_timeout(0.01)
                with pytest.raises(TimeoutError):
                    await ln.accept()
            before = sockets()
            with pytest.raises(OpError, match=taken + stale) as caught:
                await listen("unix", path)
            assert caught.value.errno == errno.EADDRINUSE
            assert (caught.value.syscall, sockets()) == ("bind", before)
            os.remove(path)

        async with await listen_packet("unixgram", path) as conn:
            with pytest.raises(OpError, match=taken + "$"):
                await listen("unix", path)
            conn.set_timeout(0.01)
            with pytest.raises(TimeoutError):
                await conn.read_from()
        os.remove(path)

        os.symlink("nowhere", path)
        with pytest.raises(OpError, match=taken + r" \(the file is no socket\)$"):
            await listen("unix", path)

        async with await listen("unix", "") as ln:  # an abstract name is no file
            with pytest.raises(OpError, match=rf"^listen unix {ln.addr}: bind: .* in use$"):
                await listen("unix", ln.addr)

    run(main)


# -- what becomes of the path


@pytest.mark.parametrize("unlink", [None, True, False])
@pytest.mark.parametrize("network", STREAMS)
def test_the_first_close_removes_the_path_unless_told_otherwise(run, path, network, unlink):
    """Row 93."""

    async def main():
        ln = await listen(network, path)
        if unlink is not None:
            ln.set_unlink_on_close(unlink)
        assert os.path.exists(path)
        await ln.close()
        assert os.path.exists(path) is (unlink is False)
        pathlib.Path(path).unlink(missing_ok=True)
        pathlib.Path(path).write_text("another's")
        await ln.close()
        assert os.path.exists(path)
        with pytest.raises(ClosedError, match=f"^set {network} {path}: use of closed network"):
            ln.set_unlink_on_close(True)

    run(main)


def test_unlinking_can_be_switched_off_and_on(run, path):
    async def main():
        async with await listen("unix", path) as ln:
            for unlink in (False, True):
                ln.set_unlink_on_close(unlink)
            with pytest.raises(TypeError, match="unlink must be a bool, not int"):
                ln.set_unlink_on_close(0)
        assert not os.path.exists(path)

    run(main)


def test_the_path_of_a_successor_stays(run, path):
    """A new server has replaced the file before the old one closes; Go removes it then."""

    async def main():
        async with await listen("unix", path):
            os.unlink(path)
            successor = await listen("unix", path)
        async with successor:
            assert os.path.exists(path)
            async with await dial("unix", path), await successor.accept():
                pass
        assert not os.path.exists(path)

    run(main)


@pytest.mark.parametrize("name", ["{}", "@{}", ""])
def test_a_listener_that_cannot_be_registered_leaves_no_path(run, path, monkeypatch, name):
    class NotRegistered(UnixListener):
        def init(self, poller, **how):
            raise OpError("open", "unix", err=errno.ENOSPC)

    async def main():
        before = sockets()
        with monkeypatch.context() as patch:
            patch.setattr("gopoll.net.listen.UnixListener", NotRegistered)
            with pytest.raises(OpError, match=r"no space left on device$"):
                await listen("unix", name.format(path))
        assert sockets() == before
        assert not os.path.exists(path)
        await (await listen("unix", path)).close()

    run(main)


def test_a_path_that_is_gone_already_does_not_matter(run, path):
    async def main():
        async with await listen("unix", path):
            os.unlink(path)

    run(main)


def test_a_relative_path_is_removed_from_where_it_was(run, path, monkeypatch):
    folder = os.path.dirname(path)
    monkeypatch.chdir(folder)

    async def main():
        async with await listen("unix", "s") as ln:
            assert ln.addr == "s"
            os.chdir("/")
        assert not os.path.exists(path)

    run(main)


def test_the_path_of_datagrams_stays(run, path):
    async def main():
        async with await listen_packet("unixgram", path) as conn:
            assert conn.local_addr == path
        assert os.path.exists(path)
        taken = (
            f"^listen unixgram {path}: bind: address already in use \\(nobody has it open any more"
        )
        with pytest.raises(OpError, match=taken):
            await listen_packet("unixgram", path)

    run(main)


def test_a_close_in_a_forked_child_leaves_the_path(path):
    """A9."""
    lines = said(
        f"""
        async def main():
            async with await gopoll.listen("unix", {path!r}) as ln:
                if fork():
                    ln.close()
                    say(os.path.exists({path!r}))
                    os._exit(0)
                say(os.path.exists({path!r}))
            say(os.path.exists({path!r}))

        gopoll.run(main)
        """
    )
    assert lines == ["True", "child ended with 0", "True", "False"]
