"""bench/guard: no operation makes another system call, or takes more instructions, than recorded.

That needs strace and valgrind. Figures of another build say nothing: then the test is skipped, and
says how to record them.
"""

import json
import sys
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(ROOT)
    from bench import guard
    from bench.guard_ops import BLOCKS, OPERATIONS

NAMES = list(OPERATIONS)

pytestmark = pytest.mark.timeout(600)  # 15 s, and ten times that on a machine with no time for us

# The same operations, with something more in each read.
SPOILT = """
import os
import runpy

from gopoll.net.conn import TCPConn

read = TCPConn.read

def spoilt(self, n=65536):
    {wrong}
    return read(self, n)

TCPConn.read = spoilt
runpy.run_path({program!r}, run_name="__main__")
"""


def there(function, *args):
    """Return what *function* does; skip the test if the machine lacks something."""
    try:
        return function(*args)
    except guard.Missing as err:
        pytest.skip(str(err))


@pytest.fixture(scope="module")
def calls():
    """Return the system calls of all operations, counted once."""
    there(guard.refuse_slow_builds)
    return there(guard.count_calls, NAMES)


@pytest.fixture(scope="module")
def instructions():
    """Return the instructions of all operations, counted once."""
    there(guard.refuse_slow_builds)
    return there(guard.count_instructions, NAMES)


@pytest.fixture
def spoilt(tmp_path):
    """Return a function that writes the program with something wrong in every read."""

    def write(wrong):
        program = tmp_path / "spoilt.py"
        program.write_text(SPOILT.format(wrong=wrong, program=str(guard.PROGRAM)))
        return program

    return write


@pytest.fixture
def figures(tmp_path, monkeypatch):
    """Have the figures in a file of the test's own; return its path."""
    path = tmp_path / "guard.json"
    monkeypatch.setattr(guard, "FIGURES", path)
    return path


# -- the guard -------------------------------------------------------------------------------------


def test_every_operation_makes_the_system_calls_that_are_recorded(calls):
    recorded = there(guard.recorded_calls, guard.load())
    assert set(recorded) == set(NAMES)
    changed = guard.other_calls(calls, recorded)
    assert not changed, "\n".join([*changed, f"if that is meant: {guard.RECORD}"])


def test_no_operation_takes_more_instructions_than_are_recorded(instructions):
    recorded = there(guard.recorded_instructions, guard.load())
    assert set(recorded) == set(NAMES)
    more = guard.more_instructions(guard.least_instructions(instructions, recorded), recorded)
    assert not more, "\n".join([*more, f"if that is meant: {guard.RECORD}"])


def test_one_more_system_call_for_each_read_is_seen(calls, spoilt):
    now = guard.count_calls(["read/write"], spoilt("os.getpgrp()"))
    assert guard.other_calls(now, calls) == [
        "read/write: in 256 operations: getpgrp 0 -> 256",
    ]


def test_one_more_call_of_python_for_each_read_is_seen(instructions, spoilt):
    now = guard.count_instructions(["read/write"], spoilt("pass"))
    now = guard.least_instructions(now, instructions, spoilt("pass"))
    more = guard.more_instructions(now, instructions)
    assert any(line.startswith("read/write: in python: ") for line in more), (more, now)


# -- its parts -------------------------------------------------------------------------------------


def test_what_is_tolerated_is_a_share_of_what_was_and_a_little():
    before = {"read/write": {"gopoll": 1000.0, "python": 1000.0, "libc": 1000.0}}

    def more(**places):
        return guard.more_instructions({"read/write": before["read/write"] | places}, before)

    assert more() == []
    assert more(gopoll=1009.0, python=1054.0, libc=1254.0) == []
    assert more(gopoll=1.0) == []
    assert more(gopoll=1011.0) == ["read/write: in gopoll: 1,000.0 -> 1,011.0 (+1.1%)"]
    assert more(python=1056.0) == ["read/write: in python: 1,000.0 -> 1,056.0 (+5.6%)"]
    assert more(libc=1256.0) == ["read/write: in libc: 1,000.0 -> 1,256.0 (+25.6%)"]


def test_what_has_grown_is_counted_again_alone_and_the_least_counts(monkeypatch):
    before = {name: {"gopoll": 1000.0, "python": 1000.0, "libc": 1000.0} for name in NAMES[:3]}
    now = {name: dict(places) for name, places in before.items()}
    now[NAMES[0]]["python"] = now[NAMES[1]]["python"] = 1100.0
    now[NAMES[1]]["libc"] = 990.0
    counted = []

    def count(names, program, seed):
        counted.append((names, seed))
        return {
            name: before[name]
            | {"python": 1080.0 - seed * (name == NAMES[1])}
            | ({"python": 1000.0} if name == NAMES[0] else {})
            for name in names
        }

    monkeypatch.setattr(guard, "count_instructions", count)
    found = guard.least_instructions(now, before)
    assert counted == [(sorted(NAMES[:2]), 1), ([NAMES[1]], 2)]
    assert found[NAMES[0]] == before[NAMES[0]]
    assert found[NAMES[1]] == {"gopoll": 1000.0, "python": 1078.0, "libc": 990.0}
    assert found[NAMES[2]] == before[NAMES[2]]
    assert [pair[0] for pair in guard.grown(found, before)] == [NAMES[1]]


def test_a_system_call_less_is_a_change_too():
    before = {"spawn-join": Counter(getpid=244, epoll_wait=8)}
    assert guard.other_calls(before, before) == []
    now = {"spawn-join": Counter(getpid=244, epoll_wait=7, read=1)}
    (line,) = guard.other_calls(now, before)
    assert line == "spawn-join: in 244 operations: epoll_wait 8 -> 7, read 0 -> 1"


def test_instructions_belong_to_the_object_that_they_are_in(tmp_path, monkeypatch):
    """The cost of a callee, which stands below its caller too, is not counted twice."""
    monkeypatch.setattr(guard, "package", lambda: Path("/x/gopoll/_fdop.so"))
    dump = tmp_path / "callgrind.2"
    dump.write_text(
        "events: Ir\n"
        "ob=(1) /x/gopoll/_fdop.so\nfn=(1) step\n0 100\ncob=(2) /lib/libc.so.6\ncfn=(2) recv\n"
        "calls=3 0\n0 50\n0 7\n\n"
        "ob=(2)\nfn=(2)\n0 50\n\n"
        "ob=(3) /usr/bin/python3.11\nfn=(3) eval\n0 1000\n\n"
        "ob=(1)\nfn=(4) read\n+4 20\n"
        "totals: 1177\n"
    )
    assert guard.by_place(dump) == {"gopoll": 127, "libc": 50, "python": 1000}


def test_marks_that_are_not_seen_are_an_error():
    pieces = list(range(2 * BLOCKS * 2))
    assert guard.cut(["a", "b"], pieces) == {"a": [1, 3, 5], "b": [7, 9, 11]}
    with pytest.raises(guard.Failed, match="11 marks were seen, 12 were set"):
        guard.cut(["a", "b"], pieces[:-1])


def test_figures_hold_for_the_build_they_were_recorded_with(figures, monkeypatch):
    first = {"read/write": {"gopoll": 1.0, "python": 2.0, "libc": 3.0}}
    second = {"read/write": {"gopoll": 4.0, "python": 5.0, "libc": 6.0}}
    with pytest.raises(guard.Missing, match=r"^no instructions are recorded for this build: "):
        guard.recorded_instructions(guard.load())
    guard.record({"read/write": Counter(read=1)}, first)
    assert guard.recorded_calls(guard.load()) == {"read/write": {"read": 1}}
    assert guard.recorded_instructions(guard.load()) == first

    with monkeypatch.context() as patch:
        patch.setattr(guard, "other_build", lambda: {"version": "3.99.0"})
        assert guard.recorded_instructions(guard.load()) == {"read/write": {"gopoll": 1.0}}
        guard.record(None, second)
        assert guard.recorded_instructions(guard.load()) == second
        patch.setattr(guard, "own_build", lambda: {"cython": "4"})
        with pytest.raises(guard.Missing, match=r"\{'cython': '4'\}"):
            guard.recorded_instructions(guard.load())
        patch.setattr(guard.platform, "machine", lambda: "abacus")
        with pytest.raises(guard.Missing, match=r"^no system calls are recorded for abacus: "):
            guard.recorded_calls(guard.load())

    assert guard.recorded_instructions(guard.load()) == first
    guard.record(None, second)
    assert guard.recorded_instructions(guard.load()) == second
    assert len(json.loads(figures.read_text())["instructions"]) == 2, "replaced"


def test_the_command_says_what_there_is_more_of(figures, monkeypatch, capsys):
    counted = {name: {"gopoll": 100.0, "python": 100.0, "libc": 100.0} for name in NAMES}
    made = {name: Counter(read=OPERATIONS[name][1]) for name in NAMES}
    for look in ("refuse_slow_builds", "find_strace", "find_valgrind"):
        monkeypatch.setattr(guard, look, lambda: None)
    monkeypatch.setattr(guard, "count_calls", lambda names: made)
    monkeypatch.setattr(guard, "count_instructions", lambda names, *_, **__: counted)

    def command(*args):
        monkeypatch.setattr(sys, "argv", ["guard", *args])
        status = guard.main()
        return status, *capsys.readouterr()

    status, out, err = command()
    assert status == 1
    assert "no instructions are recorded for this build" in err
    assert "no system calls are recorded for" in err
    status, out, err = command("--record")
    assert (status, err) == (0, "")
    status, out, err = command()
    assert (status, err) == (0, "")
    assert "read/write                300     100.0   +0.0%" in out
    assert "netpoll                     1  read 1" in out
    counted["netpoll"]["gopoll"] = 106.0
    made["netpoll"]["read"] = 0
    status, out, err = command()
    assert status == 1
    assert err == (
        "bench.guard: netpoll: in gopoll: 100.0 -> 106.0 (+6.0%)\n"
        "bench.guard: netpoll: in 256 operations: read 256 -> 0\n"
    )
    with pytest.raises(SystemExit, match=r"^bench\.guard: --keep: .*'/dev/null'"):
        command("--keep", "/dev/null")
