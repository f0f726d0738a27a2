"""The command line: gopoll, and python -m gopoll.

Called once, on the main thread. The subcommands are in _cli; here are the arguments, the errors
in one line each, and the exit status: 0 done, 1 failed, 2 wrong usage, 130 Ctrl-C.
"""

from __future__ import annotations

import argparse
import io
import math
import resource
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import gopoll
from gopoll._cli.client import run_client
from gopoll._cli.demo import run_demo
from gopoll._cli.echo import listen_and_serve
from gopoll._cli.output import (
    OutputClosedError,
    abandon_stdout,
    complain,
    is_terminal,
    printable,
    say,
)
from gopoll.errors import op_error

__all__ = ["main"]

FAILED = 1
USAGE = 2
INTERRUPTED = 130  # 128 + SIGINT, as a shell reports it

MOST_CONNS = 100_000
MOST_BYTES = 16 << 20
MOST_SECONDS = 86400.0

STATUS = "exit status: 0 done, 1 failed (one line on stderr says why), 2 wrong usage, 130 Ctrl-C"


class Parser(argparse.ArgumentParser):
    """argparse with errors in one line."""

    def error(self, message: str) -> NoReturn:
        """Print the error and where to find help; exit with status 2."""
        self.exit(USAGE, f"{self.prog}: {printable(message)} (see {self.prog} --help)\n")

    def print_help(self, file: Any = None) -> None:
        """Print the help through the one door; argparse itself swallows what goes wrong."""
        say(self.format_help(), end="")


class Version(argparse.Action):
    """--version: asks the installed metadata, and only when it is wanted."""

    def __call__(self, parser: argparse.ArgumentParser, *args: Any) -> None:
        """Print the version and exit."""
        from importlib.metadata import PackageNotFoundError, version

        try:
            text = version("gopoll")
        except PackageNotFoundError:
            text = "(not installed)"
        say(f"gopoll {text}")
        parser.exit()


def _number(kind: type[int | float], least: float, most: float) -> Callable[[str], Any]:
    """Return a converter for argparse that keeps to a range."""

    def convert(text: str) -> int | float:
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        if not least <= value <= most:
            name = "a whole number" if kind is int else "a number"
            span = f"{least:,} to {most:,}" if kind is int else f"{least:g} to {most:,g}"
            raise argparse.ArgumentTypeError(f"want {name} from {span}: {text!r}")
        return value

    return convert


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="gopoll",
        description="Go's network poller for Python: a demo, an echo server and a client.",
        epilog=STATUS,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action=Version, nargs=0, help="print the version and exit")
    commands = parser.add_subparsers(metavar="COMMAND", required=True, title="commands")

    def add(name: str, text: str, detail: str) -> argparse.ArgumentParser:
        return commands.add_parser(
            name, help=text, description=detail, epilog=STATUS, allow_abbrev=False
        )

    demo = add(
        "demo",
        "see it work: an echo server, a conversation, a load, figures",
        "Start an echo server on loopback, dial it, hold a short conversation line by line, then "
        "send messages to and fro on many connections at once; print messages per second, "
        "latency and the poller's counters. Server and clients share one process.",
    )
    seconds = _number(float, 0.01, MOST_SECONDS)
    demo.add_argument("--seconds", type=seconds, default=2.0, metavar="S", help="how long (2)")
    conns = _number(int, 1, MOST_CONNS)
    demo.add_argument("--conns", type=conns, default=64, metavar="N", help="connections (64)")
    size = _number(int, 1, MOST_BYTES)
    demo.add_argument("--size", type=size, default=1024, metavar="B", help="message bytes (1024)")
    demo.set_defaults(main=lambda args: run_demo(args.seconds, args.conns, args.size))

    echo = add(
        "echo",
        "serve: send back what comes in",
        "Listen on ADDR, print the address, and send back what each connection sends, until "
        "Ctrl-C (exit status 130) or SIGTERM (143 in a shell). A connection that breaks ends "
        "alone; when there are too many open files, new ones wait.",
    )
    echo.add_argument("addr", metavar="ADDR", help="host:port, [v6]:port or :port; port 0 is any")
    echo.set_defaults(main=lambda args: listen_and_serve(args.addr))

    dial = add(
        "dial",
        "be a client: send stdin line by line, print what comes back",
        "Connect to ADDR and send what stdin has, line by line; print each line that comes back. "
        "Stdin may be a terminal, a pipe or a file. Its end (Ctrl-D on a terminal) closes the "
        "writing side; the rest of what the server says is still printed. From a pipe or a file "
        "the next line waits for the answer to the one before, a second at most. Over datagrams, "
        "which have no end, stdin's end is the end of it all: once the last line is answered, or "
        "a second later.",
    )
    dial.add_argument("network", metavar="NETWORK", help="tcp, udp (4 or 6), unix and so on")
    dial.add_argument("addr", metavar="ADDR", help="host:port, [v6]:port or a path")
    timeout = _number(float, 0.001, MOST_SECONDS)
    dial.add_argument("--timeout", type=timeout, metavar="S", help="seconds to connect (no limit)")
    dial.set_defaults(main=lambda args: run_client(args.network, args.addr, args.timeout))
    return parser


def _raise_file_limit() -> None:
    """Raise the soft limit of open files to the hard one, as Go programs do at their start."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (OSError, ValueError):
            pass  # then the soft limit is the limit


def _run(argv: Sequence[str] | None) -> None:
    """Parse *argv* and run its subcommand to the end; all that is printed is out."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # what a peer sends, in any locale
    try:
        args = _parser().parse_args(argv)
        _raise_file_limit()
        gopoll.run(args.main(args))
    finally:
        if sys.stdout is not None:
            try:
                sys.stdout.flush()
            except BrokenPipeError:
                raise OutputClosedError from None
            except OSError as exc:
                raise op_error("write", "stdout", None, None, exc) from None


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line *argv* (sys.argv without it) and return the exit status."""
    try:
        _run(argv)
    except KeyboardInterrupt:
        if is_terminal(sys.stderr):
            sys.stderr.write("\n")  # after the terminal's ^C
        return INTERRUPTED
    except OutputClosedError:
        abandon_stdout()
        return FAILED
    except OSError as exc:
        complain(str(exc))
        abandon_stdout()
        return FAILED
    return 0


if __name__ == "__main__":
    sys.exit(main())
