"""What a host cuts that has been handed over: hosts whose exceptions do not come again (H11)."""

import subprocess
import sys
from pathlib import Path

import pytest

import gopoll
from embed.hosts import Recorder, need
from gopoll.embed import Guest

EXAMPLE = Path(__file__).parent.parent.parent / "examples" / "gevent_host.py"


@pytest.mark.parametrize("kind", ["recv", "select"])
def test_what_the_host_cuts_is_not_lost_when_it_has_been_handed_over(kind):
    """H11: its exceptions do not come again, so the operation cannot return."""
    with Guest(Recorder()):
        chan = gopoll.Chan()
        op = chan.recv() if kind == "recv" else gopoll.select(None, chan.recv_case())
        steps = op.__await__()
        assert next(steps) == "the host's own"
        assert chan.try_send("precious")
        with pytest.raises(KeyError, match="killed"):
            steps.throw(KeyError("killed"))
        assert chan.try_recv() == ("precious", True)
        assert chan.try_recv() == (None, False)


@pytest.mark.parametrize("waits", [False, True])
def test_a_greenlet_of_the_gevent_example_that_is_killed_loses_no_value(waits):
    """The kill is on its way as the value is handed over."""
    need("gevent")
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", KILLED, str(EXAMPLE.parent), "next" * waits],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.stdout, done.stderr) == ("[] ['precious']\n", "")


KILLED = """
import sys
sys.path.insert(0, sys.argv[1])
import gevent, gopoll
from gevent_host import Gevent, Guest, wait

def receive(chan, got):
    got.append(wait(chan.recv()))

with Guest(Gevent()):
    chan, killed, got = gopoll.Chan(), [], []
    first = gevent.spawn(receive, chan, killed)
    gevent.idle()
    second = gevent.spawn(receive, chan, got)
    if sys.argv[2]:
        gevent.idle()
    first.kill(block=False)
    assert chan.try_send("precious")
    second.join()
    assert first.dead
    print(killed, got)
"""
