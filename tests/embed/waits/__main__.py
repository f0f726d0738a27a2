"""What the waits of one library end with: python -m embed.waits SUBJECT [WAIT EVENT].

A program of its own, started by test_contract_peers.py with tests/ on the path: a wait that hangs,
a loop with a state for the whole process and a socket that is closed under a loop harm nobody else.
It prints a line of JSON: {wait: {event: cell of the table in docs/embedding.md}}. Where a scene
fails, its traceback is the cell.
"""

import functools
import importlib
import json
import sys
import traceback

from embed.waits.scenes import EVENTS, play


def maker(module, name, *args):
    """Return a function that makes a Lib: a library is imported only where it is wanted."""
    return lambda: getattr(importlib.import_module(f"embed.waits.{module}"), name)(*args)


LOOPS = ("asyncio", "uvloop", "gopoll.embed.aio")
SUBJECTS = {
    "goroutine": maker("on_gopoll", "Gopoll"),
    **{f"task of {name}": maker("on_gopoll", "InHost", name) for name in (*LOOPS, "trio")},
    **{f"{name} sock_*": maker("on_asyncio", "Sock", name) for name in LOOPS},
    **{f"{name} streams": maker("on_asyncio", "Streams", name) for name in LOOPS},
    "trio SocketStream": maker("on_trio", "TrioStream"),
    "trio.socket": maker("on_trio", "TrioSocket"),
    "gevent": maker("on_gevent", "Gevent"),
}


def cell(lib, wait, event):
    """Return what a *wait* ends with at *event*, on a loop of its own."""
    try:
        return lib.run(functools.partial(play, lib, wait, event))
    except Exception:
        return traceback.format_exc()


def main(subject, *only):
    lib = SUBJECTS[subject]()
    wanted = {only[0]: [only[1]]} if only else {wait: EVENTS[wait] for wait in lib.waits}
    print(json.dumps({w: {e: cell(lib, w, e) for e in events} for w, events in wanted.items()}))


if __name__ == "__main__":
    main(*sys.argv[1:])
