"""Name servers that are dead, broken, or say that there is no such name."""

import queue
import socket
import time

import pytest

import gopoll
from gopoll import Canceled, DeadlineExceeded, DNSError
from gopoll.runtime.scope import timeout
from helpers.netns import host, with_resolv_conf
from net.tools import pair, parked

DEAD = "10.77.0.53"  # behind the interface of a host that swallows everything
A_SECOND = 0.9  # the shortest time that the system's resolver gives a server, by its own clock


@pytest.fixture
def with_server(tmp_path):
    """Return a function that calls another where *server* is asked for names."""

    def call(here, server, fn, *args, patience=1, **options):
        conf = tmp_path / "resolv.conf"
        conf.write_text(f"nameserver {server}\noptions timeout:{patience} attempts:1\n")
        return here.run(with_resolv_conf, conf, lambda: fn(*args, **options))

    return call


async def echo_until(done, a, b):
    """Send bytes to and fro until *done*; return how often."""
    rounds = 0
    while not done():
        await a.write(b"x")
        await b.write(await b.read())
        assert await a.read() == b"x"
        rounds += 1
    return rounds


@pytest.mark.parametrize("options", [{}, {"handoff": False}], ids=["handoff", "none"])
def test_while_a_dead_server_is_asked_the_rest_of_the_program_goes_on(run, with_server, options):
    async def main():
        async with pair() as (a, b):
            start = time.monotonic()
            asking = gopoll.go(gopoll.dial, "tcp", "name.example:80")
            rounds = await echo_until(lambda: asking.done, a, b)
            with pytest.raises(DNSError, match=r"^dial tcp: lookup name\.example: ") as caught:
                await asking
            assert time.monotonic() >= start + A_SECOND
            assert caught.value.is_temporary
            assert not caught.value.is_not_found
            assert caught.value.host == "name.example"
            assert rounds > 20

    with host("10.77.0.1/24") as here:
        with_server(here, DEAD, run, main, **options)


def test_a_look_up_ends_with_its_time_or_its_goroutine(run, with_server):
    async def main():
        start = time.monotonic()
        with pytest.raises(DNSError, match=r"^dial tcp: lookup a\.example: ") as caught:
            await gopoll.dial("tcp", "a.example:80", timeout=0.05)
        assert time.monotonic() >= start + 0.05
        assert caught.value.is_timeout
        assert isinstance(caught.value, TimeoutError)

        with pytest.raises(DeadlineExceeded) as caught:
            async with timeout(0.05):
                await gopoll.dial("tcp", "b.example:80")
        assert not isinstance(caught.value, DNSError)

        looking = [gopoll.go(gopoll.dial, "tcp", f"{i}.example:80") for i in range(40)]
        await parked(*looking)  # more than there are threads
        for g in looking:
            g.cancel("enough")
        for g in looking:
            with pytest.raises(Canceled, match="enough"):
                await g
        async with await gopoll.listen("tcp", "127.0.0.1:0") as listener:
            async with await gopoll.dial("tcp", listener.addr), await listener.accept():
                pass

    with host("10.77.0.1/24") as here:
        with_server(here, DEAD, run, main, patience=4)  # 40 park within that


def test_what_the_hosts_file_knows_asks_no_server(run, with_server):
    async def main():
        assert "127.0.0.1" in await gopoll.Resolver().lookup_host("localhost")

    with host("10.77.0.1/24") as here:
        with_server(here, DEAD, run, main)


SERVFAIL, NXDOMAIN = 2, 3


def answer(sock, code):
    """Answer each question on *sock* with *code* and nothing else, until an empty datagram."""
    with sock:
        while True:
            question, asker = sock.recvfrom(512)
            if not question:
                return
            # An answer, recursion available; the counts and the question as they came.
            head = question[:2] + bytes([question[2] | 0x80, 0x80 | code])
            sock.sendto(head + question[4:], asker)


@pytest.mark.parametrize("code", [SERVFAIL, NXDOMAIN])
def test_the_error_says_whether_asking_again_can_help(run, with_server, code):
    ready = queue.Queue()

    def server():
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.bind(("127.0.0.1", 53))
        ready.put(None)
        answer(sock, code)

    def stop():
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.sendto(b"", ("127.0.0.1", 53))

    async def main():
        with pytest.raises(DNSError, match=r"^dial tcp: lookup name\.example: ") as caught:
            await gopoll.dial("tcp", "name.example:80")
        assert caught.value.is_not_found == (code == NXDOMAIN)
        assert caught.value.is_temporary == (code == SERVFAIL)
        assert not caught.value.is_timeout

    with host("10.77.0.1/24") as here:
        answering = here.start(server)
        ready.get(timeout=60)
        try:
            with_server(here, "127.0.0.1", run, main)
        finally:
            here.run(stop)
        answering.join()
