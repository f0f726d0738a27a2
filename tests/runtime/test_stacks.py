"""Stacks of threads that go on while they are read."""

import gc
import sys
import threading
from pathlib import Path

import pytest

from gopoll.runtime import stacks
from helpers.child import run_python
from plugins.header import FREE_THREADED

# A thread ends when a finaliser runs; the collector runs at each point of the walk in turn.
COLLECTED_IN_A_WALK = """
import gc, sys, threading, time
from gopoll.runtime import stacks

class Cycle:
    def __init__(self):
        self.me = self
    def __del__(self):
        if walking and not end.is_set():
            end.set()
            time.sleep(0.002)

def deep(n):
    if n:
        return deep(n - 1)
    ready.set()
    end.wait()

def current_frames(read=sys._current_frames):
    global walking
    frames = read()
    for _ in range(30):
        Cycle()
    gc.set_threshold(n)  # from now on
    walking = True
    return frames

sys._current_frames = current_frames
walking = False
for n in range(31, 231):
    ready, end = threading.Event(), threading.Event()
    thread = threading.Thread(target=deep, args=(40,))
    thread.start()
    ready.wait()
    gc.collect()
    found = stacks.of_threads()[thread.ident]
    gc.set_threshold(700)
    walking = False
    end.set()
    thread.join()
    assert [frame.name for frame in found].count("deep") == 41
print("whole")
"""


def test_a_collection_during_the_walk_does_not_take_the_frames_away():
    """F1. traceback.walk_stack crashes Python 3.11 here."""
    done = run_python(COLLECTED_IN_A_WALK)
    assert (done.returncode, done.stdout, done.stderr) == (0, "whole\n", "")


@pytest.mark.parametrize("enabled", [True, False])
def test_the_collector_is_left_as_it_was(enabled):
    was = gc.isenabled()
    try:
        gc.enable() if enabled else gc.disable()
        stacks.of_threads()
        assert gc.isenabled() == enabled
    finally:
        gc.enable() if was else gc.disable()


def test_the_innermost_frame_comes_last_with_its_line():
    line = sys._getframe().f_lineno + 1
    found = stacks.of_threads()[threading.get_ident()]
    ours = next(f for f in found if f.name == "test_the_innermost_frame_comes_last_with_its_line")
    assert (ours.filename, ours.lineno) == (__file__, line)
    names = [frame.name for frame in found]
    assert found.index(ours) > names.index("pytest_pyfunc_call")
    assert "stacks.of_threads()" in ours.line


ASKED_FOR = """
import sys
from gopoll.runtime._frames import have_gil
print(have_gil(), getattr(sys, "_is_gil_enabled", lambda: True)())
"""


@pytest.mark.parametrize("asked", ["0", "1"])
def test_whether_there_is_a_gil_is_what_the_interpreter_says(monkeypatch, asked):
    """Without one it may be asked for, in the environment or by a module that is imported."""
    monkeypatch.delenv("PYTHON_GIL", raising=False)
    if FREE_THREADED:  # others refuse it
        monkeypatch.setenv("PYTHON_GIL", asked)
    done = run_python(ASKED_FOR)
    assert done.stdout.split() == [str(asked == "1" or not FREE_THREADED)] * 2, done.stderr


def test_whether_there_is_a_gil_is_asked_in_one_place():
    folder = Path(__file__).parents[2] / "src"
    found = [p.name for p in folder.rglob("*.py*") if "is_gil_enabled" in p.read_text()]
    assert found == ["_frames.pyx"]
