"""bench/interference: a disturbance disturbs, the open loop counts from when a message was due.

The figures themselves are nothing for a test; where one is looked at it is a time that must have
passed. The servers of rivals are started where they are installed.
"""

import functools
import json
import socket
import subprocess
import sys

import pytest

from helpers import bench
from helpers.bench import ROOT

with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(ROOT)
    from bench.interference import __main__ as runner
    from bench.interference import point as points
    from bench.interference.point import ALL, DISTURBANCES, Disturbance
    from bench.macro import build, measure, processes, rivals

run = functools.partial(bench.run, bench.module("bench.interference"))

# A server whose reads have a deadline that a test can wait for, and which ends where it blocks.
HASTY = """
import os, runpy, sys
sys.path.insert(0, sys.argv[1])
import beside
beside.DEADLINE_SECONDS = 0.2
beside.block = lambda: os._exit(7)
del sys.argv[0]
sys.argv[0] = sys.argv.pop(1)
runpy.run_path(sys.argv[0], run_name="__main__")
"""

# An echo server that is late in its own way.
SERVER = """
import selectors, socket, time
listener = socket.create_server(("127.0.0.1", 0), backlog=100)
print(listener.getsockname()[1], flush=True)
selector = selectors.DefaultSelector()
selector.register(listener, selectors.EVENT_READ)
count = 0
while True:
    for key, _ in selector.select():
        if key.fileobj is listener:
            selector.register(listener.accept()[0], selectors.EVENT_READ)
            continue
        data = key.fileobj.recv(1 << 16)
        if not data:
            selector.unregister(key.fileobj)
            key.fileobj.close()
            continue
        count += 1
        {how}
"""

PYTHON = [name for name in ALL if not name.startswith("go") or name.startswith("gopoll")]

FIGURES = {
    *("messages", "seconds", "server_cpu_seconds", "load_cpu_seconds", "max_us"),
    *("p50_us", "p99_us", "p99.9_us", "cpu_us", "load_cpu_us", "per_second", "preemptions"),
}


@pytest.fixture(scope="module")
def load():
    """Return the load."""
    try:
        return str(build.compile_c("load"))
    except build.Missing as missing:
        pytest.skip(str(missing))


def cpu():
    """Return a CPU that we may use."""
    return measure.places("one").server


def command_of(name):
    """Return the command of a server; skip the test if it cannot be started."""
    commands, skipped = runner.ready([ALL[name]])
    if name in skipped:
        pytest.skip(skipped[name])
    return commands[name]


def tiny(load, name, disturbance, **options):
    """Measure one point for a moment."""
    options = {"seconds": 0.1, "open_seconds": 0.1, "warmup": 0.0, "patience": 20.0} | options
    place = measure.places("one")
    return points.point(name, command_of(name), disturbance, place, load, **options)


def test_a_run_measures_prints_and_keeps(load, tmp_path):
    kept = tmp_path / "kept.json"
    options = ["--servers", "gopoll,asyncio-streams", "--beside", "none,hog", "--cpus", "one"]
    options += ["--rounds", 2, "--seconds", 0.1, "--open-seconds", 0.1, "--warmup", 0]
    out, err = run(*options, "--json", kept)
    result = json.loads(kept.read_text())
    assert (result["suite"], result["skipped"]) == ("interference", {})
    assert {"cpu", "cpus", "virtual", "memory_mib", "kernel"} <= result["machine"].keys()
    assert {"taken", "commit", "changed", "load_average", "load_average_after"} <= result.keys()
    assert {"python", "gopoll", "cc"} <= result["versions"].keys()
    wanted = [
        (n, beside, server)
        for n, order in enumerate((["gopoll", "asyncio-streams"], ["asyncio-streams", "gopoll"]), 1)
        for beside in ("none", "hog")
        for server in order
    ]
    assert [(p["round"], p["beside"], p["server"]) for p in result["points"]] == wanted
    for p in result["points"]:
        for loop in ("closed", "open"):
            assert p[loop].keys() - {"hog_share"} >= FIGURES, p
            assert p[loop]["messages"] > 0
            assert ("hog_share" in p[loop]) is (p["beside"] == "hog")
        assert p["open"]["messages"] + p["open"]["unanswered"] == 640
    assert "\nnone: nothing; server and load on one CPU; 2 rounds\n" in out
    assert out.count("\ngopoll ") == 2
    assert sum(line.startswith("[") for line in err.splitlines()) == len(wanted)
    assert str(ROOT) not in kept.read_text()


def test_one_that_fails_does_not_stop_the_others(load, monkeypatch, capsys):
    fails = rivals.Rival("trio", lambda: ["false"])
    monkeypatch.setitem(ALL, "trio", fails)
    words = "--servers trio,asyncio-proto --beside none --cpus one --rounds 1 --seconds 0.1"
    monkeypatch.setattr(sys, "argv", ["x", *words.split(), "--open-seconds", "0.1"])
    monkeypatch.setattr(runner.command, "end_at_once", lambda: None)
    monkeypatch.setattr(runner.where, "refusal", lambda: None)
    assert runner.main() == 1
    out, err = capsys.readouterr()
    assert "trio: 1 failed: false ended with status 1" in out
    assert "none, trio: failed: false ended" in err
    assert "\nasyncio-proto " in out


@pytest.mark.parametrize("name", ALL)
def test_every_server_echoes_beside_everything(name, load, monkeypatch):
    monkeypatch.setattr(points, "CONNECTIONS", 4)
    few = Disturbance("slow", "", "deadlines", 20)
    for disturbance in [d for d in DISTURBANCES.values() if not d.clients] + [few]:
        if points.applies(name, disturbance.name):
            found = tiny(load, name, disturbance)
            assert found["closed"]["messages"] > 0
            assert found["open"]["messages"] == 40
            hog = disturbance.name == "hog" and name in PYTHON
            assert ("hog_share" in found["closed"]) is hog


@pytest.mark.parametrize("name", ["asyncio-proto", "gevent", "trio", "uvloop-sock"])
@pytest.mark.parametrize("beside", ["sleep", "compute"])
def test_a_task_that_blocks_is_met_by_those_it_stops(name, beside, load, monkeypatch):
    """100 ms of blocking, 1 ms of rest: a message of the open loop that is due early waits."""
    monkeypatch.setattr(points, "CONNECTIONS", 4)
    found = tiny(load, name, DISTURBANCES[beside], open_seconds=0.3)
    assert found["open"]["max_us"] > 70_000


def hasty(name):
    """Return the command of a HASTY server."""
    command = command_of(name)
    at = next(n for n, word in enumerate(command) if word.endswith(".py"))
    return [*command[:at], "-c", HASTY, str(rivals.SERVERS), *command[at:], "0"]


@pytest.mark.parametrize("name", [name for name in PYTHON if points.applies(name, "sleep")])
@pytest.mark.parametrize("beside", ["sleep", "syscall", "compute"])
def test_the_task_that_blocks_is_there(name, beside):
    with processes.running([*hasty(name), beside], cpu(), batch=False) as echo:
        assert echo.has_ended(60)
        assert "ended with status 7" in echo.obituary()


@pytest.mark.parametrize("name", [name for name in PYTHON if points.applies(name, "deadlines")])
def test_under_deadlines_who_is_silent_is_cut_off(name):
    with processes.running([*hasty(name), "deadlines"], cpu(), batch=False) as echo:
        address = ("127.0.0.1", int(echo.line(30)))
        with socket.create_connection(address, 60) as sock:
            sock.sendall(b"x")
            assert sock.recv(10) == b"x"
            try:
                assert sock.recv(10) == b""
            except ConnectionResetError:
                pass


def by_hand(load, tmp_path, how, words):
    """Run the load by hand against a server that does *how* with each block of bytes."""
    script = tmp_path / "server.py"
    script.write_text(SERVER.format(how=how))
    with processes.running([sys.executable, str(script)], cpu(), batch=False) as echo:
        done = subprocess.run(
            [load, "--port", echo.line(30), "--connections", "4", "--rate", "100", *words.split()],
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert done.stderr == ""
    return json.loads(done.stdout)


def test_a_latency_counts_from_when_the_message_was_due(load, tmp_path):
    """The first on schedule is answered after half a second; so are all behind it."""
    how = "time.sleep(0.5 * (count == 5)); key.fileobj.sendall(data)"
    found = by_hand(load, tmp_path, how, "--seconds 0.6")
    assert (found["messages"], found["unanswered"]) == (240, 0)
    assert found["max_us"] > 480_000
    assert found["p50_us"] > 150_000


def test_the_window_holds_what_was_due_in_it(load, tmp_path):
    """What was due before it and is answered in it does not count."""
    how = "time.sleep(0.5 * (count == 5)); key.fileobj.sendall(data)"
    found = by_hand(load, tmp_path, how, "--warmup 0.4 --seconds 0.5")
    assert (found["messages"], found["unanswered"]) == (200, 0)


def test_what_is_never_answered_counts_with_its_age(load, tmp_path):
    found = by_hand(
        load,
        tmp_path,
        "if count < 6: key.fileobj.sendall(data[:1024])",
        "--seconds 0.5 --patience 0.3",
    )
    assert (found["messages"], found["unanswered"]) == (1, 199)
    assert found["p50_us"] > 300_000
    assert found["max_us"] > 500_000


def test_a_server_that_answers_nothing_is_an_error(load, tmp_path):
    script = tmp_path / "server.py"
    script.write_text(SERVER.format(how="if count < 65: key.fileobj.sendall(data)"))
    command = [sys.executable, str(script)]
    with pytest.raises(processes.Failed, match=r"no answer for 0.3 s, \d+ messages are on"):
        points.point(
            "other",
            command,
            DISTURBANCES["none"],
            measure.places("one"),
            load,
            seconds=0.1,
            open_seconds=0.1,
            warmup=0,
            patience=0.3,
        )


def test_slow_clients_that_are_cut_off_are_an_error(load, tmp_path):
    script = tmp_path / "server.py"
    how = "key.fileobj.sendall(data)\n        if count > 20 and len(data) == 1: "
    how += "key.fileobj.shutdown(socket.SHUT_RDWR)"
    script.write_text(SERVER.format(how=how))
    with pytest.raises(processes.Failed, match=r"the slow clients have ended: load.* closed by"):
        points.point(
            "other",
            [sys.executable, str(script)],
            Disturbance("slow", "", "none", 20),
            measure.places("one"),
            load,
            seconds=0.1,
            open_seconds=2,
            warmup=0,
            patience=5,
        )


def test_without_a_certificate_nobody_speaks_tls(monkeypatch):
    def missing():
        raise build.Missing("no openssl")

    monkeypatch.setattr(runner, "certificate", missing)
    commands, skipped = runner.ready([ALL["asyncio-proto"], ALL["asyncio-tls-proto"]])
    assert list(commands) == ["asyncio-proto"]
    assert skipped == {"asyncio-tls-proto": "no openssl"}


@pytest.mark.parametrize(
    "words",
    [
        *("--port 7 --rate 5 --depth 2", "--port 7 --rate 5 --churn", "--port 7 --churn --tls"),
        *("--port 7 --rate -1", "--port 7 --rate 5 --messages 3"),
    ],
)
def test_the_load_refuses_what_makes_no_sense(words, load):
    done = subprocess.run([load, *words.split()], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "usage: load --port N" in done.stderr


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["--servers", "gopoll,nginx"], "no server nginx: there are gopoll"),
        (["--beside", "noise"], "no disturbance noise: there are none, hog"),
        (["--servers", "gopoll-tls", "--beside", "sleep"], "nothing is left to be measured"),
        (["--json", "/dev/null/results.json"], "File exists: '/dev/null'"),
        (["--open-seconds", "0"], "invalid positive float value: '0'"),
    ],
)
def test_a_command_line_that_makes_no_sense_is_refused(words, error, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["x", "--cpus", "one", *words])
    monkeypatch.setattr(runner.command, "end_at_once", lambda: None)
    monkeypatch.setattr(runner.where, "refusal", lambda: None)
    with pytest.raises(SystemExit) as caught:
        runner.main()
    assert error in f"{caught.value}{capsys.readouterr().err}"


def test_the_list_says_what_there_is():
    out, _ = run("--list", "--servers", "gopoll,asyncio-proto")
    lines = out.splitlines()
    assert [line.split()[0] for line in lines] == [*DISTURBANCES, "gopoll", "asyncio-proto"]


def test_the_runner_refuses_a_slow_build(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["x", "--list"])
    monkeypatch.setattr(runner.where, "refusal", lambda: "this gopoll is a trace build")
    with pytest.raises(SystemExit, match=r"^bench.interference: this gopoll is a trace build$"):
        runner.main()
