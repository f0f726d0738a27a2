"""Goroutines as programs see them: run, go, the handle, and what a goroutine asks of its thread.

Called by programs; each docstring says on which thread. The scheduler itself is in sched.py.
Go: runtime/proc.go, Gosched, LockOSThread, GOMAXPROCS (go1.27).
"""

from __future__ import annotations

import inspect
import os
import threading
from collections.abc import Awaitable, Callable, Coroutine, Generator
from types import CoroutineType, FunctionType
from typing import TYPE_CHECKING, Any, Generic, TypeVar, TypeVarTuple, overload

from gopoll._park import Awaitable as Op
from gopoll.runtime._exec import Syscall, lock_thread, unlock_thread
from gopoll.runtime._frames import have_gil
from gopoll.runtime._g import Handle, Join
from gopoll.runtime._sched import current_g, current_sched, is_scheduler_thread
from gopoll.runtime._waits import Gosched, Sleep
from gopoll.runtime.context import Context, ambient, background
from gopoll.runtime.debug import check_environment, wait_reason, warn_once
from gopoll.runtime.report import check_when
from gopoll.runtime.sched import Scheduler, name_of

__all__ = [
    "Goroutine",
    "current",
    "go",
    "gomaxprocs",
    "gosched",
    "lock_os_thread",
    "run",
    "sleep",
    "syscall",
    "unlock_os_thread",
]

_T = TypeVar("_T")
_Args = TypeVarTuple("_Args")

MAX_PROCS = 1024
_LONGEST = 4e9  # seconds that a sleep can last

_procs: int | None = None  # what gomaxprocs() has set for the runs to come


class Goroutine(Handle, Generic[_T]):
    """The handle of a goroutine: await it, cancel it, ask how it is. Made by go().

    If a goroutine ends with an error, the error goes to whoever awaits it. If nobody can any more
    (no handle is left, or the last is dropped without an await), run() ends with that error; with
    KeyboardInterrupt and SystemExit at once, unless somebody awaits it by then or it is in a Group.
    Handles of one goroutine are equal.
    """

    __slots__ = ("__weakref__",)

    if TYPE_CHECKING:

        def __await__(self) -> Generator[Any, Any, _T]:
            """Wait for the end; return the result or raise the error."""

    def cancel(self, cause: object = None) -> None:
        """Have every park of the goroutine raise Canceled(cause) from now on. Any thread."""
        self._g.sched.cancel(self._g, cause)

    @property
    def done(self) -> bool:
        """Whether it has ended."""
        return self._g.done

    def result(self, timeout: float | None = None) -> _T:
        """Wait for the end from a plain thread, at most *timeout* seconds, and return the result.

        Raises the goroutine's error, TimeoutError, or RuntimeError: in a goroutine, and where run()
        has left it behind, as awaiting it in another run does.
        """
        g = self._g
        if timeout is not None:
            check_when("timeout", timeout)
        if not g.done:
            if is_scheduler_thread():
                raise RuntimeError("result() would block the goroutines: await the handle instead")
            ended = threading.Lock()  # its release() is in C: no signal handler interrupts it
            ended.acquire()
            release = ended.release  # one object: abort() takes back the one that was committed
            join = Join(g)
            wait = -1 if timeout is None else min(max(float(timeout), 0.0), threading.TIMEOUT_MAX)
            late = join.commit(release) and not ended.acquire(timeout=wait)
            if late and join.abort(release):
                raise TimeoutError(f"goroutine {g.id} has not ended within {timeout} s")
        g.claim()
        g.raise_error()
        value: _T = g.result
        return value

    @property
    def id(self) -> int:
        """A number of its own, from 1 (main) up."""
        return self._g.id

    @property
    def name(self) -> str:
        """The name given to go(), else that of the function."""
        return str(self._g.name)

    @property
    def state(self) -> str:
        """One of runnable, running, waiting, dead; left behind if run() has ended without it."""
        return self._g.state_name

    @property
    def wait_reason(self) -> str | None:
        """What it waits in while its state is waiting, else None."""
        return wait_reason(self._g)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Goroutine) and other._g is self._g

    def __hash__(self) -> int:
        return hash(self._g)

    def __repr__(self) -> str:
        return f"<Goroutine {self.id} {self.name} {self.state}>"


async def _await(awaitable: Awaitable[_T]) -> _T:
    return await awaitable


async def _call(fn: Any, args: tuple[Any, ...]) -> Any:
    return await coroutine_of(fn, args, "run()")


def coroutine_of(fn: Any, args: tuple[Any, ...], what: str) -> Coroutine[Any, Any, Any]:
    """Make a coroutine of an async function and arguments, or of any awaitable."""
    if type(fn) is FunctionType:  # the usual case, quickly
        made = fn(*args)
        if type(made) is CoroutineType:
            return made
    elif callable(fn) and not inspect.isawaitable(fn):
        made = fn(*args)
    else:
        if not inspect.isawaitable(fn):
            kind = type(fn).__name__
            raise TypeError(f"{what} takes an async function or an awaitable, not {kind}")
        if args:
            raise TypeError(f"{what} takes arguments only with a function, not with an awaitable")
        made = fn
    if inspect.iscoroutine(made):
        return made
    if inspect.isawaitable(made):
        return _await(made)
    name = getattr(fn, "__qualname__", type(fn).__name__)
    raise TypeError(
        f"{what} takes an async function or an awaitable; {name} returned {type(made).__name__}"
    )


def _usable_cpus() -> int:
    """Return how many CPUs this process may use: its affinity and its cgroup's quota."""
    cpus = len(os.sched_getaffinity(0))
    try:
        with open("/sys/fs/cgroup/cpu.max", encoding="ascii") as file:
            quota, period = file.read().split()
        if quota != "max":
            cpus = min(cpus, max(1, -(-int(quota) // int(period))))
    except (OSError, ValueError):
        pass  # no such cgroup
    return cpus


def default_procs() -> int:
    """Return how many Ps a run gets that does not say: see run()."""
    if _procs is not None:
        return _procs
    text = os.environ.get("GOMAXPROCS", "")
    if text.isascii() and text.isdigit() and text.strip("0"):
        digits = text.lstrip("0")  # int() refuses very many
        return MAX_PROCS if len(digits) > 9 else min(int(digits), MAX_PROCS)
    if text:
        warn_once(f"GOMAXPROCS={text!r} is ignored: it must be a number from 1 up")
    return 1 if have_gil() else _usable_cpus()


@overload
def run(
    main: Callable[[*_Args], Awaitable[_T]],
    *args: *_Args,
    procs: int | None = None,
    handoff: bool = True,
) -> _T: ...


@overload
def run(main: Awaitable[_T], *, procs: int | None = None, handoff: bool = True) -> _T: ...


def run(  # type: ignore[misc]  # mypy: the variadic overload is never covered
    main: Any, *args: Any, procs: int | None = None, handoff: bool = True
) -> Any:
    """Run *main* (an async function with *args*, or a coroutine) to its end; return its result.

    When main returns, the goroutines that still run are cancelled and their `finally` blocks run.
    Then async generators that are left are closed, and cancelled in that if it takes some 5 s. An
    exception that nobody awaits ends run() with it. On the main thread Ctrl-C raises
    KeyboardInterrupt in the main goroutine. Any thread; RuntimeError if one runs here already.

    procs: how many goroutines may run at once; else GOMAXPROCS, else 1 with the GIL and the number
    of usable CPUs without. handoff: whether others go on, on another thread, while a goroutine
    blocks or computes for more than 10 ms. handoff=False promises that no two goroutines run Python
    between two awaits, and implies one P (ValueError with procs > 1).
    """
    if procs is not None and (isinstance(procs, bool) or not isinstance(procs, int)):
        raise TypeError(f"procs must be an int, not {type(procs).__name__}")
    if procs is not None and not 1 <= procs <= MAX_PROCS:
        raise ValueError(f"procs={procs}: must be from 1 to {MAX_PROCS}")
    if not handoff and procs is not None and procs > 1:
        raise ValueError(
            f"procs={procs} with handoff=False: goroutines that run one at a time need one P"
        )
    check_environment()
    if callable(main) and not inspect.iscoroutinefunction(main) and not inspect.isawaitable(main):
        # There: what it returns may be an op, which wants a scheduler.
        coro: Any = _call(main, args)
        coro.__qualname__ = getattr(main, "__qualname__", type(main).__name__)
    else:
        coro = coroutine_of(main, args, "run()")
    count = 1 if not handoff else default_procs() if procs is None else procs
    try:
        return Scheduler(count, handoff).run(coro)
    except BaseException:
        if inspect.getcoroutinestate(coro) == inspect.CORO_CREATED:
            coro.close()  # a Ctrl-C came before it was anybody's
        raise


@overload
def go(
    fn: Callable[[*_Args], Awaitable[_T]],
    *args: *_Args,
    name: str | None = None,
    context: Context | None = None,
) -> Goroutine[_T]: ...


@overload
def go(
    fn: Awaitable[_T], *, name: str | None = None, context: Context | None = None
) -> Goroutine[_T]: ...


def go(  # type: ignore[misc]  # as run
    fn: Any, *args: Any, name: str | None = None, context: Context | None = None, **options: Any
) -> Goroutine[Any]:
    """Start a goroutine: an async function with *args*, or any awaitable.

    Keyword arguments are go()'s own: for those of the function, call it, go(fn(x, option=1)).
    It inherits a copy of the contextvars and the ambient Context; *context* is its ambient one
    instead. RuntimeError outside run(), or when that has ended.
    """
    if options:
        option = next(iter(options))
        raise TypeError(
            f"go() takes no {option}=: if that is for {name_of(fn)}(), call it: "
            f"go({name_of(fn)}(..., {option}=...))"
        )
    sched: Scheduler = current_sched()
    if context is not None and not isinstance(context, Context):
        raise TypeError(f"context must be a Context, not {type(context).__name__}")
    coro = coroutine_of(fn, args, "go()")
    if context is None:
        g = current_g()
        context = background() if g is None else g.context
        if context.left:
            assert g is not None
            context = ambient(g)
    else:
        context._keep_time()
    made = sched.make_g(coro, context, name or name_of(fn))
    handle: Goroutine[Any] = Goroutine(made)  # before another thread may see it end unheld (E2)
    sched.start_g(made)
    return handle


def gosched() -> Gosched:
    """Let the others run: go to the tail of the global queue. An op. Go: runtime.Gosched."""
    return Gosched()


def sleep(seconds: float) -> Op[None]:
    """Park for *seconds* from the await on, never shorter; 0 or less is gosched(). An op.

    Go: time.Sleep.
    """
    try:
        if seconds > 0:
            return Sleep(current_sched(), int(min(seconds, _LONGEST) * 1e9) + 1)
    except TypeError:
        raise TypeError(f"seconds are a number, not {type(seconds).__name__}") from None
    if seconds != seconds:
        raise ValueError("cannot sleep for nan seconds")
    return Gosched()


def current() -> Goroutine[Any] | None:
    """Return a handle of the goroutine that runs on this thread, or None."""
    g = current_g()
    return None if g is None or g.system else Goroutine(g)


def gomaxprocs(n: int = 0) -> int:
    """Return how many Ps there are, after setting it to *n* if that is above 0. Go: GOMAXPROCS.

    Inside run() it changes that run; outside it is the default of the runs to come. RuntimeError
    in a run with handoff=False.
    """
    global _procs
    if isinstance(n, bool) or not isinstance(n, int):
        raise TypeError(f"n must be an int, not {type(n).__name__}")
    if n > MAX_PROCS:
        raise ValueError(f"gomaxprocs({n}): at most {MAX_PROCS}")
    try:
        sched: Scheduler = current_sched()
    except RuntimeError:
        was = default_procs()
        if n > 0:
            _procs = n
        return was
    if n > 0 and not sched.handoff and n != sched.nprocs:
        raise RuntimeError("gomaxprocs() cannot change the one P of run(handoff=False)")
    return sched.set_nprocs(n) if n > 0 else sched.nprocs


def syscall() -> Syscall:
    """`with syscall():` around a call that blocks: others go on at once, on another thread.

    The block must not await (RuntimeError). On leaving, the thread waits until it may run Python
    of goroutines again. RuntimeError outside a goroutine. Go: entersyscall, exitsyscall.
    """
    return Syscall()


def lock_os_thread() -> None:
    """Bind the running goroutine to its thread, and the thread to it, until unlock_os_thread().

    Counted. Every switch of such a goroutine costs two of threads. RuntimeError outside a
    goroutine, or if the others would be left without a thread and none can be started. A thread
    whose goroutine ends locked ends with it. Go: runtime.LockOSThread.
    """
    lock_thread()


def unlock_os_thread() -> None:
    """Undo one lock_os_thread(); without one do nothing. Go: runtime.UnlockOSThread."""
    unlock_thread()
