"""docs/api.md, gopoll.__all__ and the classes: one list of names."""

import collections
import importlib.metadata
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

import gopoll
from gopoll.net.conn import INTERNAL

TEXT = (Path(__file__).parent.parent / "docs" / "api.md").read_text()
THERE, LATER = TEXT.split("## Not there yet")
# The classes whose methods a section's rows begin with a dot for.
OWNERS = {
    "Connections": [gopoll.TCPConn],
    "The poller, for loops": [gopoll.Poller],
}
IN_THE_ENVIRONMENT = {"GOPOLL_DEBUG"}
NOT_IN_ALL = {"__version__"}  # a star import would overwrite the program's own
SOURCES = Path(__file__).parent.parent / "src" / "gopoll"
CALLS = re.compile(r"^(\.?[A-Za-z_][\w.]*)")


def first_cells(there=THERE):
    """Yield (section, text in backticks) of the first column of every table."""
    section = ""
    for line in there.splitlines():
        if line.startswith("## "):
            section = line[3:]
        elif line.startswith("| `"):
            for text in re.findall(r"`([^`]+)`", line.split("|")[1]):
                yield section, text


CELLS = sorted(set(first_cells()))


@pytest.mark.parametrize(("section", "text"), CELLS, ids=[text for _, text in CELLS])
def test_every_documented_name_is_there(section, text):
    name = CALLS.match(text).group(1)
    if name in IN_THE_ENVIRONMENT:
        assert name in (SOURCES / "runtime" / "debug.py").read_text()
    elif name in NOT_IN_ALL:
        assert hasattr(gopoll, name)
        assert name not in gopoll.__all__
    elif name.startswith("."):
        assert all(hasattr(owner, name[1:]) for owner in OWNERS[section])
    elif name.startswith("embed."):
        module, _, inner = name.rpartition(".")
        if module == "embed.trio":
            pytest.importorskip("trio", reason="trio is not installed (pip install trio)")
        assert inner in importlib.import_module(f"gopoll.{module}").__all__
    elif "." in name:
        owner, method = name.split(".")
        assert hasattr(getattr(gopoll, owner), method)
    else:
        assert name in gopoll.__all__


def doubles(there):
    """Return the names that have more than one row in a section."""
    rows = collections.Counter((s, CALLS.match(text).group(1)) for s, text in first_cells(there))
    return [name for (_, name), count in rows.items() if count > 1]


def test_no_name_has_two_rows():
    """Of two, one is out of date before long."""
    assert doubles(THERE) == []


def test_a_second_row_is_seen():
    row = next(line for line in THERE.splitlines() if line.startswith("| `sleep("))
    assert doubles(THERE.replace(row, f"{row}\n| `sleep(again)` | |")) == ["sleep"]


def test_every_public_name_is_documented():
    documented = set(re.findall(r"\b[A-Za-z_]\w*\b", THERE))
    assert [name for name in gopoll.__all__ if name not in documented] == []


def test_all_is_complete_sorted_and_importable():
    assert len(set(gopoll.__all__)) == len(gopoll.__all__)
    for name in gopoll.__all__:
        assert getattr(gopoll, name) is not None


def test_what_is_not_there_yet_is_not_there():
    later = re.findall(r"`([A-Za-z_]+)`", LATER)
    assert [name for name in later if hasattr(gopoll, name)] == []


@pytest.mark.parametrize(
    ("cls", "text"),
    [
        (gopoll.Goroutine, "Goroutine"),
        (gopoll.Context, "Context"),
        (gopoll.Listener, "Listener"),
        (gopoll.PollDesc, "PollDesc"),
        (gopoll.ParkRequest, "ParkRequest"),
        (gopoll.Reader, "Reader("),
        (gopoll.Resolver, "Resolver("),
        (gopoll.Writer, "Writer("),
        (gopoll.TLSConn, "TLSConn`"),
        (gopoll.Dialer, "Dialer("),
        (gopoll.Poller, "Poller("),
    ],
)
def test_the_methods_in_a_row_are_there(cls, text):
    line = next(ln for ln in THERE.splitlines() if ln.startswith(f"| `{text}"))
    methods = re.findall(r"`\.(\w+)", line)
    assert methods
    assert [m for m in methods if not hasattr(cls, m)] == []


def test_public_methods_are_documented():
    """Each public method of the classes users hold has a word in the list."""
    for cls in (
        gopoll.TCPConn,
        gopoll.UDPConn,
        gopoll.UnixConn,
        gopoll.TLSConn,
        gopoll.Listener,
        gopoll.Poller,
        gopoll.PollDesc,
        gopoll.Timer,
    ):
        names = [n for n in dir(cls) if not n.startswith("_") and n not in INTERNAL]
        missing = [n for n in names if not re.search(rf"\b{n}\b", THERE)]
        assert missing == [], cls


def test_every_public_docstring_begins_with_a_verb_or_a_noun_and_ends_with_a_stop():
    for name in gopoll.__all__:
        thing = getattr(gopoll, name)
        if callable(thing):
            first = (thing.__doc__ or "").strip().split("\n\n")[0]
            assert first, name


def test_the_version_is_the_distributions_and_costs_an_import_nothing():
    assert gopoll.__version__ == version("gopoll")
    assert "__version__" in dir(gopoll)
    code = 'import gopoll, sys; print("importlib.metadata" in sys.modules, gopoll.__version__)'
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == f"False {version('gopoll')}\n"


def test_without_a_distribution_there_is_no_version(monkeypatch):
    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", missing)
    with pytest.raises(AttributeError, match="without its distribution"):
        _ = gopoll.__version__
    assert getattr(gopoll, "__version__", None) is None
