"""gopoll demo: the conversation, the progress, the figures; a failure and Ctrl-C in one line."""

import dataclasses
import io
import re
import signal
import sys

import pytest

import gopoll
from cli.tools import WAY_IDS, WAYS, Terminal, finish, outcome, running, shell
from cli.tools import gopoll as command
from gopoll._cli import demo, echo
from net.tools import local_listener

CONVERSATION = """\
Text to send: hello
Message from server: hello
Text to send: how fast are you?
Message from server: how fast are you?
Text to send: good bye
Message from server: good bye
"""
PROGRESS = re.compile(r"^ +(\d+\.\d) s +([\d,]+) messages$", re.MULTILINE)


def rows(text):
    """Return {name: (figure, remark)} of the tables in *text*."""
    found = re.findall(r"^  (\w[\w/ ]*?) {2,}([\d,]+)(?:  (.*))?$", text, re.MULTILINE)
    return {name: (int(figure.replace(",", "")), remark) for name, figure, remark in found}


def check_figures(text, conns):
    """Check the figures and counters at the end of a demo; nothing is said about speed."""
    figures, _, counters = text.partition("\ncounters of the poller and the scheduler\n")
    seen = rows(figures)
    assert list(seen) == ["messages", "messages/s", "latency p50", "latency p99"]
    assert seen["messages"][0] >= conns
    assert seen["messages/s"][0] > 0
    assert 0 < seen["latency p50"][0] <= seen["latency p99"][0]
    seen = rows(counters)
    assert list(seen) == [field.name for field in dataclasses.fields(gopoll.Stats)]
    assert seen["descriptors"][0] >= 2 * conns
    assert seen["events"][0] >= conns


@pytest.mark.parametrize("way", WAYS, ids=WAY_IDS)
def test_the_demo_on_a_pipe(way):
    status, out, err = outcome(command("demo", "--seconds", "0.2", way=way))
    assert (status, err) == (0, "")
    head, found, rest = out.partition(CONVERSATION)
    assert found
    assert re.fullmatch(r"echo server on 127\.0\.0\.1:\d+\n\n", head)
    assert rest.startswith("\n64 connections, 1,024 bytes a message:\n")
    progress = PROGRESS.findall(rest)
    assert len(progress) == demo.PIPE_LINES
    assert progress == sorted(progress, key=lambda p: (float(p[0]), int(p[1].replace(",", ""))))
    assert progress[-1][0] == "0.2"
    assert "\r" not in out
    check_figures(PROGRESS.sub("", rest), 64)


def test_the_demo_on_a_terminal_has_one_line_that_is_drawn_anew():
    with Terminal("demo", "--seconds", "0.3", "--conns", "4") as terminal:
        terminal.expect(CONVERSATION)
        terminal.expect("\n4 connections, 1,024 bytes a message:\n")
        status, shown = terminal.finish()
    assert status == 0
    live, _, rest = shown.partition("\n")
    drawn = live.split("\r")[1:]
    assert drawn
    assert [text for text in drawn if not PROGRESS.fullmatch(text)] == []
    assert "\r" not in rest
    check_figures(rest, 4)


@pytest.mark.parametrize(("conns", "size"), [(1, 1), (2, 1_000_000)])
def test_any_number_and_size(conns, size):
    done = command("demo", "--seconds", "0.05", "--conns", conns, "--size", size)
    assert (done.returncode, done.stderr) == (0, "")
    many = "s" if conns > 1 else ""
    head = f"\n{conns} connection{many}, {size:,} byte{'s' if size > 1 else ''} a message:\n"
    assert head in done.stdout
    check_figures(PROGRESS.sub("", done.stdout.partition(head)[2]), conns)


@pytest.mark.parametrize("size", [1024, 1_000_000])
def test_ctrl_c_ends_it_in_one_line(size):
    """It used to print a stack for each of the connections that it closed."""
    with Terminal("demo", "--seconds", "60", "--size", size) as terminal:
        terminal.expect("messages\r")  # drawn twice: it lives
        terminal.type(b"\x03")
        status, shown = terminal.finish()
    assert status == 130
    assert re.fullmatch(r"[^\n]*\^C\n+", shown), shown


def test_sigint_on_a_pipe_ends_it_without_a_word():
    with running("demo", "--seconds", "60", text=True) as process:
        while not PROGRESS.match(line := process.stdout.readline()) and "bytes a" not in line:
            assert line
        process.send_signal(signal.SIGINT)
        status, _, err = finish(process)
    assert (status, err) == (130, "")


def test_too_few_descriptors_are_told_before_anything_begins():
    """It used to be the server that ran out, 20 s of waiting and a stack for each client."""
    said = "gopoll: open 64 connections: too many open files (limit 100; raise RLIMIT_NOFILE)\n"
    assert outcome(shell('ulimit -n 100; "$@"', "demo")) == (1, "", said)


@pytest.mark.parametrize("limit", [12, 13, 14, 15, 16])
def test_around_the_limit_it_works_or_says_so(limit):
    done = shell(f'ulimit -n {limit}; "$@"', "demo", "--seconds", "0.02", "--conns", "2")
    said = f"open 2 connections: too many open files (limit {limit}; raise RLIMIT_NOFILE)"
    assert (done.returncode, done.stderr) in [(0, ""), (1, f"gopoll: {said}\n")]


async def drive_against(server, size):
    """Drive two clients against *server*, a function for each connection."""
    async with local_listener() as listener:

        async def accept():
            for _ in range(2):
                gopoll.go(server, await listener.accept())

        accepting = gopoll.go(accept)
        clients = [await gopoll.dial("tcp", listener.addr) for _ in range(2)]
        await accepting
        try:
            return await demo.drive(clients, 30, b"a" * size)
        finally:
            for conn in clients:
                conn.close()


async def hang_up(conn):
    async with conn:
        await conn.read()


async def distort(conn):
    async with conn:
        while data := await conn.read():
            await conn.write(data.swapcase())


@pytest.mark.parametrize("size", [100, 1_000_000])
@pytest.mark.parametrize("server", [hang_up, distort])
def test_a_client_that_fails_ends_it_for_all_at_once(server, size, capfd):
    """Not only after the 30 seconds, and with one error."""
    with pytest.raises(gopoll.OpError) as raised:
        gopoll.run(drive_against, server, size)
    assert re.match(r"(read|write) tcp 127\.0\.0\.1:\d+->127\.0\.0\.1:\d+: ", str(raised.value))
    assert capfd.readouterr().err == ""


def test_a_conversation_checks_the_answer(capsys):
    async def main():
        async with local_listener() as listener:
            gopoll.go(distort_one, listener)
            await demo.converse(listener.addr)

    async def distort_one(listener):
        await distort(await listener.accept())

    with pytest.raises(gopoll.OpError, match=r"^read tcp .*: the answer is not what was sent$"):
        gopoll.run(main)


def test_a_conversation_is_held_line_by_line(run, capsys):
    async def main():
        async with local_listener() as listener:
            serving = gopoll.go(echo.serve, listener)
            await demo.converse(listener.addr)
        await serving

    run(main)
    assert capsys.readouterr().out == CONVERSATION


@pytest.mark.parametrize(
    ("counts", "share", "value"),
    [
        ({}, 0.5, 0),
        ({7: 1}, 0.5, 7),
        ({7: 1}, 0.99, 7),
        ({1: 50, 9: 50}, 0.5, 1),
        ({9: 50, 1: 49}, 0.5, 9),
        ({1: 98, 5: 1, 9: 1}, 0.99, 5),
        ({1: 97, 5: 1, 9: 2}, 0.99, 9),
    ],
)
def test_a_percentile_is_the_smallest_value_that_covers_the_share(counts, share, value):
    assert demo.percentile(counts, share) == value


def test_a_tally_counts_by_microsecond():
    tally = demo.Tally()
    for ns in (999, 1_000, 1_999, 2_000):
        tally.add(ns)
    assert tally.messages == 4
    assert tally.round_trips == {0: 1, 1: 2, 2: 1}


def test_a_table_is_aligned_without_blanks_at_its_ends():
    text = demo.table([("a", "1", "one"), ("long name", "1,234", "")])
    assert text == "  a                     1  one\n  long name         1,234"


@pytest.mark.parametrize("late", [False, True])
def test_progress_on_a_pipe_has_its_lines_however_late_they_come(late, monkeypatch):
    monkeypatch.setattr(sys, "stdout", out := io.StringIO())
    progress = demo.Progress(4.0)
    for elapsed in [4.0] if late else [0.5, 1.0, 1.5, 2.0, 3.9, 4.0]:
        progress.show(elapsed, 10)
    progress.end()
    seconds = [line.split()[0] for line in out.getvalue().splitlines()]
    assert seconds == (["4.0"] * 4 if late else ["1.0", "2.0", "3.9", "4.0"])
