"""gopoll and python -m gopoll: arguments, exit status, errors in one line, closed streams."""

import os
import re
from importlib.metadata import version

import pytest

from cli.tools import WAY_IDS, WAYS, environment, gopoll, outcome, shell
from net.tools import closed_port, full_backlog

COMMANDS = ["demo", "echo", "dial"]


@pytest.mark.parametrize("way", WAYS, ids=WAY_IDS)
def test_version_is_that_of_the_package(way):
    assert outcome(gopoll("--version", way=way)) == (0, f"gopoll {version('gopoll')}\n", "")


@pytest.mark.parametrize("way", WAYS, ids=WAY_IDS)
def test_help_names_the_commands_and_the_exit_statuses(way):
    status, out, err = outcome(gopoll("--help", way=way))
    assert (status, err) == (0, "")
    assert out.startswith("usage: gopoll [-h] [--version] COMMAND ...\n")
    assert [c for c in COMMANDS if not re.search(rf"^ +{c} +\w", out, re.MULTILINE)] == []
    assert "0 done, 1 failed (one line on stderr says why), 2 wrong usage" in " ".join(out.split())


@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        ("demo", ["--seconds S", "--conns N", "--size B"]),
        ("echo", ["ADDR"]),
        ("dial", ["NETWORK", "ADDR", "--timeout S"]),
    ],
)
def test_each_command_has_help_of_its_own(command, arguments):
    status, out, err = outcome(gopoll(command, "--help"))
    assert (status, err) == (0, "")
    assert out.startswith(f"usage: gopoll {command} ")
    assert [a for a in arguments if not re.search(rf"^ +{a} ", out, re.MULTILINE)] == []
    assert "exit status: " in out
    assert max(map(len, out.splitlines())) <= 80


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ([], "gopoll: the following arguments are required: COMMAND (see gopoll --help)"),
        (["frob"], "gopoll: argument COMMAND: invalid choice: 'frob' "),
        (["dial", "tcp"], "gopoll dial: the following arguments are required: ADDR (see gopoll "),
        (["echo"], "gopoll echo: the following arguments are required: ADDR (see gopoll echo -"),
        (["echo", "a:1", "b:2"], "gopoll: unrecognized arguments: b:2 "),
        (["demo", "--frob"], "gopoll: unrecognized arguments: --frob "),
        (["demo", "--sec", "1"], "gopoll: unrecognized arguments: --sec 1 "),
        (["demo", "--conns"], "gopoll demo: argument --conns: expected one argument "),
        (["demo", "--conns", "0"], "want a whole number from 1 to 100,000: '0' "),
        (["demo", "--size", "1.5"], "want a whole number from 1 to 16,777,216: '1.5' "),
        (["demo", "--size", "16777217"], "want a whole number from 1 to 16,777,216: "),
        (["demo", "--seconds", "nan"], "want a number from 0.01 to 86,400: 'nan' "),
        (["demo", "--seconds=-1"], "want a number from 0.01 to 86,400: '-1' "),
        (["dial", "--timeout", "0", "tcp", "a:1"], "want a number from 0.001 to 86,400: '0' "),
        (["two\nlines \x1b[31m"], r"invalid choice: 'two\nlines \x1b[31m' "),
        (["demo", "two\nlines"], r"unrecognized arguments: two\nlines "),
    ],
)
def test_wrong_usage_is_one_line_and_status_2(args, said):
    status, out, err = outcome(gopoll(*args))
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert said in err
    assert re.search(r"\(see gopoll( \w+)? --help\)\n$", err)


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["dial", "foo", "127.0.0.1:80"], "dial foo: unknown network foo"),
        (["dial", "unix", "/no/such"], "dial unix /no/such: connect: no such file or directory"),
        (["dial", "tcp", "127.0.0.1"], "dial tcp: address 127.0.0.1: missing port in address"),
        (["dial", "tcp", ""], "dial tcp: missing address"),
        (["dial", "tcp", "127.0.0.1:99999"], "dial tcp: address 99999: invalid port"),
        (["dial", "tcp", "127.0.0.1:no_such"], "dial tcp: address no_such: unknown port"),
        (["dial", "tcp", "a\nb"], r"dial tcp: address a\nb: missing port in address"),
        (
            ["dial", "tcp6", "127.0.0.1:1"],
            "dial tcp6: address 127.0.0.1: no suitable address found",
        ),
        (["echo", "127.0.0.1"], "listen tcp: address 127.0.0.1: missing port in address"),
        (["echo", "::1:80"], "listen tcp: address ::1:80: too many colons in address"),
        (["echo", "192.0.2.1:0"], "listen tcp 192.0.2.1:0: bind: cannot assign requested address"),
    ],
)
def test_a_failure_is_one_line_and_status_1(args, said):
    assert outcome(gopoll(*args)) == (1, "", f"gopoll: {said}\n")


@pytest.mark.parametrize("way", WAYS, ids=WAY_IDS)
def test_a_refused_connection_says_so(way):
    host, port = closed_port()
    said = f"gopoll: dial tcp {host}:{port}: connect: connection refused\n"
    assert outcome(gopoll("dial", "tcp", f"{host}:{port}", way=way)) == (1, "", said)


def test_dial_gives_up_when_its_time_is_over():
    with full_backlog() as (host, port):
        done = gopoll("dial", "--timeout", "0.05", "tcp", f"{host}:{port}")
    assert outcome(done) == (1, "", f"gopoll: dial tcp {host}:{port}: i/o timeout\n")


@pytest.mark.parametrize("args", [["--help"], ["--version"], ["demo", "--seconds", "0.05"]])
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_stdout_that_takes_nothing_is_a_failure(args, unbuffered):
    """argparse swallows what goes wrong with its help, so help does not go through it."""
    done = shell('"$@" >/dev/full', *args, PYTHONUNBUFFERED=unbuffered)
    assert outcome(done) == (1, "", "gopoll: write stdout: no space left on device\n")


@pytest.mark.parametrize("args", [["--help"], ["--version"], ["demo", "--seconds", "0.05"]])
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_that_goes_away_is_no_reason_for_words(args, unbuffered):
    """`gopoll demo | head -0`: Python alone would print a BrokenPipeError, or two."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = gopoll(*args, stdout=writer, env=environment(PYTHONUNBUFFERED=unbuffered))
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (1, "")


@pytest.mark.parametrize("args", [["--help"], ["--version"], ["demo", "--seconds", "0.05"]])
def test_without_stdout_it_works_and_is_silent(args):
    assert outcome(shell('"$@" >&-', *args)) == (0, "", "")


def test_without_any_stream_the_status_says_it():
    assert outcome(shell('"$@" <&- >&- 2>&-', "demo", "--seconds", "0.05")) == (0, "", "")
    assert outcome(shell('"$@" <&- >&- 2>&-', "dial", "foo", "x")) == (1, "", "")
    assert outcome(shell('"$@" <&- >&- 2>&-', "frob")) == (2, "", "")


def test_an_error_that_nobody_can_read_keeps_its_status():
    assert outcome(shell('"$@" 2>/dev/full', "dial", "foo", "x")) == (1, "", "")


def test_the_soft_limit_of_open_files_is_raised_as_in_go():
    done = shell('ulimit -Sn 40; "$@"', "demo", "--seconds", "0.05", "--conns", "40")
    assert (done.returncode, done.stderr) == (0, "")
