"""Where the subcommands print: stdout that may go away, errors in one line on stderr.

Called by the subcommands and by __main__, on the main thread.
"""

from __future__ import annotations

import os
import sys
import threading

from gopoll.errors import op_error

__all__ = ["OutputClosedError", "abandon_stdout", "complain", "is_terminal", "printable", "say"]


class OutputClosedError(Exception):
    """Nobody reads stdout any more (`gopoll demo | head -1`); no reason to say anything."""


# Writing blocks while a pipe is full, and the others go on meanwhile: no line into another's midst.
_stdout = threading.Lock()


def say(text: str = "", end: str = "\n") -> None:
    """Print *text* on stdout at once. Raises OutputClosedError, or OpError "write stdout".

    One door for all output: a BrokenPipeError of stdout is not one of a connection.
    """
    if sys.stdout is None:  # started with it closed
        return
    try:
        with _stdout:
            sys.stdout.write(text + end)
            sys.stdout.flush()
    except BrokenPipeError:
        raise OutputClosedError from None
    except OSError as exc:
        raise op_error("write", "stdout", None, None, exc) from None


def abandon_stdout() -> None:
    """Drop what is buffered for stdout: Python would complain about it again at exit."""
    try:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)
    except (AttributeError, OSError, ValueError):
        pass  # no stdout, or one that is no file


def complain(text: str) -> None:
    """Print one line, `gopoll: text`, on stderr; never raises for want of a stderr."""
    if sys.stderr is None:
        return
    try:
        sys.stderr.write(f"gopoll: {printable(text)}\n")
        sys.stderr.flush()
    except OSError:
        pass


def is_terminal(stream: object) -> bool:
    """Report whether *stream* (sys.stdin and its like, or None) is a terminal."""
    isatty = getattr(stream, "isatty", None)
    return bool(isatty is not None and isatty())


def printable(text: str) -> str:
    r"""Return *text* as one line without control characters: a peer must not steer a terminal.

    Tabs stay; what cannot be printed is shown as Python writes it, \x1b.
    """
    return "".join(c if c.isprintable() or c == "\t" else ascii(c)[1:-1] for c in text)
