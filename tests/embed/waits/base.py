"""One face for what the libraries wait with, and a wait of one of their tasks.

Called by embed.waits, on its only thread. A subclass of Lib is a library with one kind of socket;
what it wraps, listens on and dials are its own objects, which only it looks into.
"""

import time

PATIENCE = 60  # seconds for what has to come
TURNS = 20  # of a loop: what is on its way has come after as many
ROUNDS = 20  # of a message to another task and its arrival: the same, for what the kernel brings


class NeverCame(Exception):
    """What a scene waits for has not come."""


class Wait:
    """An operation that a task of its own waits in, and what it ended with.

    limit: seconds that the library's own scope around the operation gives it, or None.
    """

    def __init__(self, lib, op, *args, limit=None):
        self.lib, self.how = lib, None
        self.task = lib.start(self._run, op, args, limit)
        lib.waits_begun.append(self)

    async def _run(self, op, args, limit):
        try:
            if limit is None:
                self.how = await op(*args)
            else:
                async with self.lib.limit(limit):
                    self.how = await op(*args)
        except BaseException as exc:
            self.how = exc
            if isinstance(exc, (self.lib.Cancelled, BaseExceptionGroup)):
                raise

    @property
    def done(self):
        return self.lib.is_done(self.task)

    @property
    def failed(self):
        return self.done and isinstance(self.how, BaseException)

    def cancel(self):
        self.lib.cancel(self.task)

    async def outcome(self):
        """Wait for the end and return what it was: a result or an exception."""
        await self.lib.until(lambda: self.done)
        return self.how


class Lib:
    """A library. Subclasses have the rest: run(main, *args), which makes a loop; start(fn, *args),
    which gives a task; is_done(task) and cancel(task); turn(), one of the loop; limit(seconds), the
    library's scope for that; wrap(sock), listen(sock), dialler(), which make the objects; read,
    write, accept, dial, close of them, and fileno; set_deadline(it, seconds), which reports whether
    there is such a thing.
    """

    #: what it calls its cancellation
    Cancelled: type[BaseException]
    #: what it can wait in
    waits = ("read", "write", "accept", "dial")
    #: whether a dial has an object that somebody else can close
    dial_closes = False

    def __init__(self):
        self.waits_begun = []

    async def end_waits(self):
        """Cancel the waits that have not ended, and see them end."""
        for wait in self.waits_begun:
            if not wait.done:
                wait.cancel()
        await self.until(lambda: all(wait.done for wait in self.waits_begun))
        self.waits_begun.clear()

    async def turns(self, n=TURNS):
        for _ in range(n):
            await self.turn()

    async def until(self, condition):
        """Turn the loop until *condition* holds."""
        patience = time.monotonic() + PATIENCE
        while not condition():
            if time.monotonic() > patience:
                raise NeverCame(f"not in {PATIENCE} s")
            await self.turn()

    async def parked(self, wait):
        """Return when *wait* is under way."""
        await self.turns()
