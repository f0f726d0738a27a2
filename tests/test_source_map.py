"""docs/source-map.md against the compiled modules and the sources."""

import importlib
import re
from functools import reduce
from pathlib import Path

import pytest

MAP = Path(__file__).parent.parent / "docs" / "source-map.md"
ROWS = re.findall(r"^\| `([\w.]+)` \| `([\w.]+)` \| (.+) \|$", MAP.read_text(), re.MULTILINE)
REQUIRED = {
    "netpollinit",
    "netpollGenericInit",
    "netpollopen",
    "netpollclose",
    "netpoll",
    "netpollBreak",
    "netpollready",
    "netpollblock",
    "netpollunblock",
    "poll_runtime_pollServerInit",
    "poll_runtime_pollOpen",
    "poll_runtime_pollClose",
    "poll_runtime_pollReset",
    "poll_runtime_pollWait",
    "poll_runtime_pollSetDeadline",
    "poll_runtime_pollUnblock",
    "poll_runtime_isPollServerDescriptor",
}


@pytest.mark.parametrize(("name", "module", "go"), ROWS, ids=[f"{m}.{n}" for n, m, _ in ROWS])
def test_each_row_names_something_that_is_there(name, module, go):
    found = importlib.import_module(module)
    if name in getattr(found, "__pyx_capi__", {}):
        return
    if "." in name and f"{module}.{name}".encode() in Path(found.__file__).read_bytes():
        return  # a method that Python does not see; its tracebacks name it
    pxd = Path(found.__file__).with_name(module.rpartition(".")[2] + ".pxd")
    if pxd.exists() and re.search(rf"^cdef inline .*\b{name}\(", pxd.read_text(), re.MULTILINE):
        return
    assert callable(reduce(getattr, name.split("."), found))


def test_every_name_of_the_core_that_go_readers_look_for_has_a_row():
    missing = REQUIRED - {name for name, _, _ in ROWS}
    assert not missing


def test_no_row_stands_twice():
    names = [(name, module) for name, module, _ in ROWS]
    assert len(names) == len(set(names)) > 60
