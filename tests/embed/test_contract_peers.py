"""What waits end with, in gopoll and in asyncio, uvloop, trio and gevent: the tables, cell by cell.

The tables of docs/embedding.md are the only list of what is expected. embed.waits finds out what
there is to be seen, in a process for each library; here the two are compared, row by row.
"""

import functools
import json
import os
import re
import subprocess
import sys

import pytest

from embed.hosts import need
from embed.waits.__main__ import SUBJECTS
from embed.waits.scenes import EVENTS
from helpers.child import HERE

PAGE = HERE.parent / "docs" / "embedding.md"
HEADING = "### Beside asyncio, uvloop, trio and gevent"
SECONDS = 250  # for a library's scenes; they take three of a machine that is not busy

STREAMS = ["asyncio streams", "uvloop streams", "gopoll.embed.aio streams"]
ROWS = {
    "gopoll, a goroutine": ["goroutine"],
    "gopoll, a task of asyncio or uvloop": [
        *("task of asyncio", "task of uvloop", "task of gopoll.embed.aio"),
    ],
    "gopoll, a task of trio": ["task of trio"],
    "asyncio `sock_*`": ["asyncio sock_*"],
    "uvloop `sock_*`": ["uvloop sock_*"],
    "`embed.aio` `sock_*`": ["gopoll.embed.aio sock_*"],
    "streams of asyncio, uvloop, `embed.aio`": STREAMS,
    "trio `SocketStream`": ["trio SocketStream"],
    "`trio.socket`": ["trio.socket"],
    "`gevent.socket`": ["gevent"],
}


def cells_of(line):
    return [cell.strip() for cell in line.strip("|").split("|")]


def read_tables(text):
    """Return {wait: {row: {event: cell}}} of the tables behind the heading."""
    section = re.split(r"^##", text.partition(f"{HEADING}\n")[2], flags=re.MULTILINE)[0]
    tables = {}
    for block in re.findall(r"(?:^\|.*\|\n)+", section, re.MULTILINE):
        head, _, *rows = map(cells_of, block.splitlines())
        tables[head[0]] = {row[0]: dict(zip(head[1:], row[1:], strict=True)) for row in rows}
    return tables


TABLES = read_tables(PAGE.read_text(encoding="utf-8"))
LINES = [
    pytest.param(wait, subject, cells, id=f"{wait}-{subject}".replace(" ", "-"))
    for wait, rows in TABLES.items()
    for row, cells in rows.items()
    for subject in ROWS.get(row, ())
]


@functools.cache
def seen(subject):
    """Return {wait: {event: cell}} as embed.waits sees it."""
    for name in {"uvloop", "trio", "gevent"} & set(re.split(r"[ .]", subject)):
        need(name)
    path = [str(HERE), os.environ.get("PYTHONPATH", "")]
    run = subprocess.run(
        [sys.executable, "-m", "embed.waits", subject],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, path))},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert run.returncode == 0, run.stderr[-4000:]
    return json.loads(run.stdout.splitlines()[-1])


@pytest.mark.parametrize(("wait", "subject", "cells"), LINES)
def test_what_a_wait_ends_with(wait, subject, cells):
    assert seen(subject)[wait] == cells


def test_the_tables_have_every_wait_of_every_library_and_every_event():
    shown = {
        (wait, subject) for wait, rows in TABLES.items() for row in rows for subject in ROWS[row]
    }
    wanted = {(wait, subject) for wait in EVENTS for subject in SUBJECTS}
    assert shown == wanted - {("accept", subject) for subject in STREAMS}
    for wait, rows in TABLES.items():
        assert {tuple(cells) for cells in rows.values()} == {tuple(EVENTS[wait])}
