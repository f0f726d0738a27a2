"""gopoll echo: it says where it is, sends back what comes, and ends when it is told to."""

import contextlib
import signal
import socket
import subprocess

import pytest

import gopoll
from cli.tools import MODULE, PATIENCE, WAY_IDS, WAYS, environment, finish, outcome, running
from cli.tools import gopoll as command
from gopoll._cli.echo import serve
from net.tools import local_listener, needs_ipv6, parked, reset


def address_of(line):
    """Return ("host", port) out of the line that the server begins with."""
    assert line.startswith("listening on ")
    assert line.endswith("\n")
    host, _, port = line.split()[-1].rpartition(":")
    return host.strip("[]"), int(port)


@contextlib.contextmanager
def server(address="127.0.0.1:0", way=MODULE, limit=None):
    """Have a server run, with at most *limit* open files; give its process and its address."""
    prefix = ("bash", "-c", f'ulimit -n {limit}; exec "$@"', "bash") if limit else ()
    with running("echo", address, way=(*prefix, *way), text=True) as process:
        yield process, address_of(process.stdout.readline())


def connect(address):
    return socket.create_connection(address, timeout=PATIENCE)


def echoes(sock, data=b"hello"):
    """Report whether *data* comes back."""
    sock.sendall(data)
    back = b""
    while len(back) < len(data) and (more := sock.recv(len(data))):
        back += more
    return back == data


@pytest.mark.parametrize("way", WAYS, ids=WAY_IDS)
def test_it_prints_its_address_and_echoes(way):
    with server(way=way) as (_, address), connect(address) as one, connect(address) as two:
        assert echoes(one)
        assert echoes(two, bytes(range(256)) * 200)
        one.shutdown(socket.SHUT_WR)
        assert one.recv(1) == b""
        assert echoes(two)


@needs_ipv6
def test_an_ipv6_address_is_printed_as_it_can_be_dialled():
    with server("[::1]:0") as (_, address):
        assert address[0] == "::1"
        with connect(address) as sock:
            assert echoes(sock)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, -15)])
def test_a_signal_ends_it_with_the_documented_status(number, status):
    """The help says: 130 for Ctrl-C; SIGTERM ends it as it ends every program."""
    with server() as (process, address), connect(address) as sock:
        assert echoes(sock)
        process.send_signal(number)
        assert finish(process) == (status, "", "")
        assert sock.recv(1) == b""
    detail = " ".join(command("echo", "--help").stdout.split())
    assert "Ctrl-C (exit status 130) or SIGTERM (143 in a shell)" in detail


def test_an_address_in_use_is_one_line():
    with server() as (_, (host, port)):
        said = f"gopoll: listen tcp {host}:{port}: bind: address already in use\n"
        assert outcome(command("echo", f"{host}:{port}")) == (1, "", said)


def test_a_connection_that_breaks_ends_alone():
    with server() as (process, address), connect(address) as kept:
        for _ in range(20):
            sock = connect(address)
            sock.sendall(bytes(100_000))
            reset(sock)
        assert echoes(kept)
        process.send_signal(signal.SIGINT)
        assert finish(process) == (130, "", "")


def test_it_ends_without_a_word_when_nobody_reads_its_address():
    line = 'exec 3> >(exec head -c 0); wait $!; exec "$@" >&3'
    done = subprocess.run(
        ["bash", "-c", line, "bash", *MODULE, "echo", "127.0.0.1:0"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env=environment(),
        timeout=PATIENCE,
    )
    assert outcome(done) == (1, "", "")


def test_too_many_open_files_wait_and_lose_nothing():
    with server(limit=24) as (process, address), contextlib.ExitStack() as stack:
        first = [stack.enter_context(connect(address)) for _ in range(10)]
        assert all(map(echoes, first))
        others = [stack.enter_context(connect(address)) for _ in range(20)]
        said = process.stderr.readline()
        where = "{}:{}".format(*address)
        text = "accept4: too many open files (limit 24; raise RLIMIT_NOFILE); trying again"
        assert said == f"gopoll: accept tcp {where}: {text}\n"
        assert all(map(echoes, first))
        for sock in first:
            sock.close()
        assert all(map(echoes_and_closes, others))


def echoes_and_closes(sock):
    with sock:
        return echoes(sock)


def test_serve_ends_when_its_listener_is_closed(run):
    async def main():
        async with local_listener() as listener:
            serving = gopoll.go(serve, listener)
            await parked(serving)
            listener.close()
            await serving

    run(main)
