"""_cli/output.py: one line for errors, one door for stdout, nothing that steers a terminal."""

import errno
import io
import os
import subprocess
import sys

import pytest

from cli.tools import environment, gopoll
from gopoll._cli.output import OutputClosedError, complain, is_terminal, printable, say
from gopoll.errors import OpError


class Broken(io.StringIO):
    """A stream that fails with one errno."""

    def __init__(self, code):
        super().__init__()
        self.code = code

    def flush(self):
        raise OSError(self.code, os.strerror(self.code))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain, caf\xe9, \u65e5\u672c", "plain, caf\xe9, \u65e5\u672c"),
        ("a\tb", "a\tb"),
        ("\x1b[2J", r"\x1b[2J"),
        ("two\nlines\r", r"two\nlines\r"),
        ("\u202e\u200b\x9b", r"\u202e\u200b\x9b"),
        ("\ud800", r"\ud800"),
        (r"\x1b", r"\x1b"),
        ("", ""),
    ],
)
def test_printable_leaves_text_and_shows_the_rest(text, shown):
    assert printable(text) == shown


def test_say_is_out_at_once(monkeypatch):
    out = io.TextIOWrapper(io.BytesIO(), write_through=False)
    monkeypatch.setattr(sys, "stdout", out)
    say("one")
    say("two", end="")
    assert out.buffer.getvalue() == b"one\ntwo"


def test_say_tells_a_closed_pipe_from_a_failure(monkeypatch):
    monkeypatch.setattr(sys, "stdout", Broken(errno.EPIPE))
    with pytest.raises(OutputClosedError):
        say("x")
    monkeypatch.setattr(sys, "stdout", Broken(errno.ENOSPC))
    with pytest.raises(OpError, match=r"^write stdout: no space left on device$"):
        say("x")
    monkeypatch.setattr(sys, "stdout", None)
    say("x")


def test_complain_says_one_line_whatever_it_is_told(monkeypatch, capsys):
    complain("it broke\nand \x1b[31m")
    assert capsys.readouterr().err == "gopoll: it broke\\nand \\x1b[31m\n"
    for stderr in (None, Broken(errno.EPIPE)):
        monkeypatch.setattr(sys, "stderr", stderr)
        complain("nobody hears it")


def test_only_a_terminal_is_one(tmp_path):
    master, slave = os.openpty()
    with os.fdopen(master, "wb"), os.fdopen(slave, "w") as terminal:
        assert is_terminal(terminal)
    with open(tmp_path / "file", "w") as file:
        assert not is_terminal(file)
    assert not is_terminal(None)
    assert not is_terminal(object())


CODE = """
import os, sys
from gopoll._cli.output import abandon_stdout
os.write(1, b"before")
sys.stdout.write("buffered")
abandon_stdout()
print(os.readlink("/proc/self/fd/1"), file=sys.stderr)
"""


def test_abandoned_output_goes_nowhere_and_is_not_complained_about():
    done = subprocess.run(
        [sys.executable, "-c", CODE],
        capture_output=True,
        text=True,
        env=environment(PYTHONUNBUFFERED=""),
        timeout=60,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "before", "/dev/null\n")


def test_a_locale_without_the_letters_does_not_stop_it():
    plain = environment(
        LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0", PYTHONIOENCODING="ascii"
    )
    done = gopoll("dial", "f\xf6\xf6", "x", env=plain)
    assert done.returncode == 1
    assert done.stderr.startswith("gopoll: dial f")
    assert done.stderr.count("\n") == 1
