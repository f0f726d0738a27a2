"""Every interleaving of a few small programs, depth first.

Called by test_interleavings.py. A program is a generator over shared state: what stands between
two yields is one atomic step; `yield condition` can go on only where condition() is true, as a
lock or a system call that blocks. States that have been seen are not explored again; a program
is put back to an earlier state by running it once more.
"""

from collections.abc import Callable, Generator
from types import SimpleNamespace

Program = Generator[Callable[[], bool] | None, None, None]
END = object()


class ViolationError(AssertionError):
    """The protocol is broken; the text names the steps that led there."""


class Run:
    """One run: the shared state, the programs, and where each of them stands."""

    def __init__(self, make, schedule=()):
        self.shared, self.programs = make()
        self.waits = [next(program, END) for program in self.programs]
        self.places: list[object] = [None] * len(self.programs)  # None: to be found out
        for index in schedule:
            self.step(index)

    def enabled(self) -> list[int]:
        """Return the programs that can take a step."""
        return [
            i for i, wait in enumerate(self.waits) if wait is None or (wait is not END and wait())
        ]

    def step(self, index: int) -> None:
        """Let program *index* take one step."""
        self.waits[index] = next(self.programs[index], END)
        self.places[index] = None

    def blocked(self) -> list[int]:
        """Return the programs that have not ended."""
        return [i for i, wait in enumerate(self.waits) if wait is not END]

    def key(self) -> object:
        """Return what the rest of the run depends on."""
        for index, place in enumerate(self.places):
            if place is None:
                self.places[index] = position(self.programs[index])
        return repr(sorted(vars(self.shared).items())), *self.places


def position(program: Program) -> object:
    """Return where *program* stands, with its variables, through `yield from`."""
    where = []
    while program is not None and program.gi_frame is not None:
        frame = program.gi_frame
        values = sorted((k, v) for k, v in frame.f_locals.items() if isinstance(v, int | str))
        where.append((frame.f_lasti, tuple(values)))
        program = program.gi_yieldfrom
    return tuple(where)


def explore(
    make: Callable[[], tuple[SimpleNamespace, list[Program]]],
    *,
    always: Callable[[SimpleNamespace], str | None] = lambda s: None,
    finally_: Callable[[SimpleNamespace, list[int]], str | None] = lambda s, blocked: None,
) -> int:
    """Run all interleavings of what make() returns; how many different states there are.

    always(shared) is asked in every state, finally_(shared, blocked programs) where nothing can
    go on; an answer is the violation. So is one that a program raises.
    """
    seen = set()
    stack: list[tuple[int, ...]] = [()]
    while stack:
        schedule = stack.pop()
        try:
            run = Run(make, schedule)
            while (key := run.key()) not in seen:
                seen.add(key)
                enabled = run.enabled()
                wrong = always(run.shared)
                if not enabled:
                    wrong = wrong or finally_(run.shared, run.blocked())
                if wrong:
                    raise ViolationError(f"{wrong}: {run.shared}")
                if not enabled:
                    break
                # This run goes on with one of them; each of the others costs a run anew.
                stack += [(*schedule, index) for index in enabled[:-1]]
                schedule = (*schedule, enabled[-1])
                run.step(enabled[-1])
        except ViolationError as exc:
            raise ViolationError(f"{exc}; after steps of {list(schedule)}") from None
    return len(seen)
