"""Throws: codes without the GIL, Go's texts with it. Which state throws what: test_pollcache.py."""

import errno

import pytest

import gopoll
from gopoll._throw import throw_texts
from gopoll.errors import InternalError
from helpers.child import run_python

# The code is what C embedders compare with: it is not renumbered.
TEXTS = {
    -10001: "runtime: netpollinit failed",
    -10002: "runtime: eventfd failed",
    -10003: "runtime: epollctl failed",
    -10004: "runtime: netpollBreak write failed",
    -10005: "runtime: netpoll failed",
    -10006: "runtime: netpoll: eventfd ready for something unexpected",
    -10007: "taggedPointerPack",
    -10008: "runtime: blocked write on free polldesc",
    -10009: "runtime: blocked read on free polldesc",
    -10010: "runtime: close polldesc w/o unblock",
    -10011: "runtime: blocked write on closing polldesc",
    -10012: "runtime: blocked read on closing polldesc",
    -10013: "runtime: unblock on closing polldesc",
    -10014: "runtime: double wait",
    -10015: "runtime: corrupted polldesc",
    -10016: "runtime: inconsistent read deadline",
    -10017: "runtime: inconsistent write deadline",
    -10018: "runtime: cannot allocate memory",
    -10019: "inconsistent poll.fdMutex",
    -10020: "runtime: netpollWaiters below zero",
}


def test_the_table_is_this_one():
    assert throw_texts() == TEXTS


@pytest.mark.parametrize("code", TEXTS)
def test_a_code_is_an_internal_error_with_exactly_its_text(probe, code):
    with pytest.raises(InternalError) as caught:
        probe.raise_throw(code)
    assert str(caught.value) == TEXTS[code]
    assert type(caught.value) is InternalError
    assert isinstance(caught.value, SystemError)
    assert gopoll.InternalError is InternalError


@pytest.mark.parametrize("code", [-10000, -10021, 0])
def test_an_unknown_code_says_which_it_is(probe, code):
    with pytest.raises(InternalError, match=f"^runtime: unknown throw {code}$"):
        probe.raise_throw(code)


def test_no_throw_can_be_taken_for_an_errno():
    """One int carries both: -errno above, throws below (-4095 is the kernel's last)."""
    assert max(TEXTS) < -4095
    assert max(TEXTS) < -max(errno.errorcode)


def test_the_table_that_is_handed_out_is_a_copy(probe):
    throw_texts().clear()
    assert throw_texts() == TEXTS
    with pytest.raises(InternalError, match="double wait"):
        probe.raise_throw(-10014)


@pytest.mark.parametrize("level", ["1", "2"])
def test_a_throw_is_there_in_optimised_runs(monkeypatch, level):
    """An assert would be gone."""
    monkeypatch.setenv("PYTHONOPTIMIZE", level)
    done = run_python("""
        import os
        from gopoll import READ, InternalError, Poller
        assert False, "this is an optimised run"
        poller = Poller()
        desc = poller.open(os.eventfd(0))
        desc.wait(READ)
        try:
            desc.wait(READ)
        except InternalError as exc:
            print(exc)
    """)
    assert (done.stdout, done.stderr) == ("runtime: double wait\n", "")


def test_a_throw_that_nobody_catches_ends_the_program_with_its_text():
    done = run_python("""
        import os
        from gopoll import Poller
        Poller().open(os.eventfd(0)).close()
    """)
    assert done.returncode == 1
    assert done.stderr.endswith("InternalError: runtime: close polldesc w/o unblock\n")
