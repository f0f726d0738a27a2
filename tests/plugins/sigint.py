"""Ctrl-C and Ctrl-\\ as a terminal delivers them, also where the suite runs in the background.

A shell without job control starts `pytest &` with SIGINT and SIGQUIT ignored, and every child would
inherit that. With other dispositions in this process, children start with the defaults again.
"""

import signal


def pytest_configure() -> None:
    """Put the usual dispositions where the shell has left none."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if signal.getsignal(signal.SIGQUIT) is signal.SIG_IGN:
        signal.signal(signal.SIGQUIT, signal.SIG_DFL)
