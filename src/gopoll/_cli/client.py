"""gopoll dial: a line-based client between stdin and a connection.

Called by __main__. The main goroutine prints what comes back; a second one sends what is typed.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Generator

import gopoll
from gopoll._cli.output import complain, is_terminal, printable, say
from gopoll.errors import format_addr, op_error
from gopoll.runtime._sched import current_poller

__all__ = ["MESSAGE", "PROMPT", "Stdin", "run_client"]

PROMPT = "Text to send: "
MESSAGE = "Message from server: "

LONGEST = 65536  # bytes of a line; what is longer goes in pieces
ANSWER_SECONDS = 1.0  # how long a line waits for the answer to the one before
PIECE_SECONDS = 0.2  # how long a text without a newline is held back
GLANCE_SECONDS = 0.1  # how long a pipe gets to show whether more was to come


async def run_client(network: str, address: str, timeout: float | None) -> None:
    """Dial, then converse until stdin or the server ends. Raises OpError."""
    async with await gopoll.dial(network, address, timeout=timeout) as conn:
        await Conversation(conn, Screen(is_terminal(sys.stdin))).hold()


class Stdin:
    """Descriptor 0, whatever it is: terminal, pipe, socket, file, closed. One reader.

    O_NONBLOCK would be a property of the terminal itself, and so of the shell that it is shared
    with. So the descriptor stays as it is: before each read the poller is asked, once (ONESHOT),
    when there is something.
    """

    def __init__(self) -> None:
        self._pd: gopoll.PollDesc | None = None
        if sys.stdin is None:  # closed: descriptor 0 is something else by now
            return
        try:
            self._pd = current_poller().open(0, gopoll.ONESHOT)
        except gopoll.NotPollableError:
            pass  # a regular file, a directory, /dev/null

    async def read(self, n: int) -> bytes:
        """Return at most *n* bytes, b"" at the end. Raises OpError."""
        if sys.stdin is None:
            return b""
        try:
            if self._pd is None:
                return await gopoll.blocking(os.read, 0, n)
            await _Readable(self._pd)
            return os.read(0, n)
        except gopoll.OpError:
            raise
        except OSError as exc:
            raise op_error("read", "stdin", None, None, exc) from None

    def close(self) -> None:
        """Unregister it; the descriptor stays open."""
        if self._pd is not None:
            self._pd.evict()
            self._pd.close()


class _Readable:
    """An awaitable: parks the goroutine until a PollDesc is readable."""

    def __init__(self, pd: gopoll.PollDesc) -> None:
        self._pd = pd

    def __await__(self) -> Generator[gopoll.ParkRequest, None, None]:
        self._pd.reset(gopoll.READ)
        yield self._pd.wait(gopoll.READ)
        self._pd.reset(gopoll.READ)


class Screen:
    """Prints both sides. On a terminal the prompt comes first and the user ends its line; else
    prompt and text are printed together, so that the transcript looks the same."""

    def __init__(self, interactive: bool) -> None:
        self.interactive = interactive
        # What is shown and the note of it are one: both goroutines may run at once.
        self._lock = threading.RLock()
        self._at_prompt = False

    def prompt(self) -> None:
        """Ask for text, unless the user is in the midst of a line."""
        with self._lock:
            if self.interactive and not self._at_prompt:
                say(PROMPT, end="")
                self._at_prompt = True

    def sent(self, line: bytes) -> None:
        """Show a line that goes to the server."""
        with self._lock:
            self._at_prompt = self.interactive and not line.endswith(b"\n")
            if not self.interactive:
                say(PROMPT + _text(line))

    def message(self, line: bytes) -> None:
        """Show a line that came from the server; one that nobody waited for redraws the prompt."""
        with self._lock:
            asked = self._at_prompt
            self.end_line()
            say(MESSAGE + _text(line))
            if asked:
                self.prompt()

    def end_line(self) -> None:
        """Leave the line of the prompt."""
        with self._lock:
            if self._at_prompt:
                say()
                self._at_prompt = False


async def _drop(sender: gopoll.Goroutine[None]) -> None:
    """End *sender*, whose own error, if any, only repeats what has ended the conversation."""
    sender.cancel("the conversation has ended")
    try:
        await sender
    except (Exception, gopoll.Canceled):
        pass


def _text(line: bytes) -> str:
    return printable(line.rstrip(b"\r\n").decode(errors="backslashreplace"))


class Conversation:
    """One connection and its two goroutines."""

    def __init__(self, conn: gopoll.Conn, screen: Screen) -> None:
        self._conn = conn
        self._screen = screen
        self._stdin = Stdin()
        self._lines = gopoll.Reader(self._stdin, LONGEST)
        self._unsent = False  # a line was read and has not left in full
        self._at_end = False  # of stdin
        self._unfinished = False  # the last that was typed is a piece of a line
        self._no_more = False  # a terminal has said its end, and would go on if it were asked
        self._write_error: gopoll.OpError | None = None
        self._patient = True  # the server answers line by line, as far as we know
        self._answered: Callable[..., None] = lambda: None

    async def hold(self) -> None:
        """Converse. Raises OpError: broken, or closed by the server with input left."""
        sender = gopoll.go(self._send)
        try:
            try:
                await self._receive()
            except gopoll.ClosedError:
                await sender  # has closed the connection, and raises why
                raise
            sender.cancel("the server has ended the conversation")
            try:
                await sender
            except gopoll.Canceled:
                pass
            await self._conclude()
        except BaseException:
            await _drop(sender)
            raise
        finally:
            self._screen.end_line()
            self._stdin.close()

    async def _conclude(self) -> None:
        """Look what has become of stdin after the server has ended."""
        if self._write_error is not None:
            raise self._write_error
        if self._at_end:
            return
        conn = self._conn
        if not self._screen.interactive:
            if self._unsent or await self._has_more():
                text = "closed by the server before the end of the input"
                raise gopoll.OpError("write", conn.network, conn.local_addr, conn.remote_addr, text)
            return
        self._screen.end_line()
        complain(f"{format_addr(conn.remote_addr)} has closed the connection")

    async def _has_more(self) -> bool:
        """Report whether stdin has another byte, now or in a moment."""
        try:
            async with gopoll.timeout(GLANCE_SECONDS):
                return bool(await self._lines.peek(1))
        except TimeoutError:
            return False

    async def _send(self) -> None:
        """Send line by line; at the end of stdin close the writing side."""
        try:
            while line := await self._next_line():
                self._screen.sent(line)
                if not await self._deliver(line):
                    return
            self._at_end = True
            self._screen.end_line()
            if self._conn.network.startswith(("udp", "unixgram")):  # where no end is ever heard
                await gopoll.sleep(0 if self._patient else ANSWER_SECONDS)
                self._conn.close()
                return
            try:
                self._conn.close_write()
            except gopoll.OpError as exc:
                self._write_error = exc
        except Exception:  # stdin or stdout is broken: end the main goroutine's read
            self._conn.close()
            raise

    async def _deliver(self, line: bytes) -> bool:
        """Send *line* and give the server a moment to answer; False if it cannot be sent.

        What the server said before it went is still to be read, so the error has to wait.
        """
        ctx, self._answered = gopoll.with_timeout(gopoll.current_context(), ANSWER_SECONDS)
        self._unsent = True
        try:
            await self._conn.write(line)
            self._unsent = False
            if self._patient and line.endswith(b"\n"):  # a piece is nothing to be answered
                await ctx.wait()
                self._patient = not isinstance(ctx.cause, TimeoutError)
        except gopoll.OpError as exc:
            self._write_error = exc
        finally:
            self._answered()
        return self._write_error is None

    async def _next_line(self) -> bytes:
        """Return a line with its newline, a piece of one that is too long, or b"" at the end."""
        if self._screen.interactive:
            return await self._typed()
        try:
            line = await self._lines.read_line()
        except gopoll.LimitError:
            return await self._lines.read(LONGEST)
        # A server that answers line by line waits for the newline that a file may lack.
        return line + b"\n" if line and not line.endswith(b"\n") else line

    async def _typed(self) -> bytes:
        """Return what a terminal hands over: a line, or the piece that Ctrl-D is pressed after.

        Pressed where nothing is typed it means the end, b"".
        """
        if self._no_more:
            return b""
        self._screen.prompt()
        line = await self._stdin.read(LONGEST)
        if not line:
            self._no_more = True
            self._screen.end_line()
            return b"\n" if self._unfinished else b""
        self._unfinished = not line.endswith(b"\n")
        return line

    async def _receive(self) -> None:
        """Show what the server says, line by line, until it ends. Raises OpError."""
        conn, held = self._conn, b""
        while True:
            try:
                conn.set_read_timeout(PIECE_SECONDS if held else None)
                data = await conn.read()
            except TimeoutError:
                if not held:
                    raise
                self._show([held])  # a question, say, that expects its answer on the same line
                held = b""
                continue
            except gopoll.ClosedError:
                if not self._at_end:
                    raise
                data = b""
            *lines, held = (held + data).split(b"\n")
            if held and (not data or len(held) > LONGEST):
                lines.append(held)
                held = b""
            if lines:
                self._show(lines)
            if not data:
                return

    def _show(self, lines: list[bytes]) -> None:
        for line in lines:
            self._screen.message(line)
        self._answered()
