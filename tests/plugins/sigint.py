"""Ctrl-C as a terminal delivers it, also where the suite itself runs in the background.

A shell without job control starts `pytest &` with SIGINT ignored, and every child would inherit
that. With a handler in this process, children start with the default again.
"""

import signal


def pytest_configure() -> None:
    """Put Python's own handler where the shell has left none."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
