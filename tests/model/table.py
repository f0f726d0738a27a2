"""The state machine of a pollDesc as a table, written from Go's rules and not from our code.

Called by test_pollcache_machine.py, which holds the compiled state machine against it. A direction
is a semaphore with four states; a descriptor is two of them, a closing flag, an event error and
two deadlines. Times are numbers that mean what the caller wants.
"""

from dataclasses import dataclass, field

NIL, READY, WAIT, PARKED = "nil", "ready", "wait", "parked"
READ, WRITE, BOTH = 1, 2, 3

# (state, what happens) -> (state after, what the caller is told, is the parked waiter woken)
TABLE = {
    # a waiter announces itself: it has to park, or readiness was stored and is consumed
    (NIL, "announce"): (WAIT, "park", False),
    (READY, "announce"): (NIL, "go on", False),
    (WAIT, "announce"): (WAIT, "double wait", False),
    (PARKED, "announce"): (PARKED, "double wait", False),
    # it has left its thread
    (NIL, "commit"): (NIL, False, False),
    (READY, "commit"): (READY, False, False),
    (WAIT, "commit"): (PARKED, True, False),
    # an event
    (NIL, "event"): (READY, None, False),
    (READY, "event"): (READY, None, False),
    (WAIT, "event"): (READY, None, False),
    (PARKED, "event"): (READY, None, True),
    # close or a deadline: nothing is stored for a waiter to come
    (NIL, "unblock"): (NIL, None, False),
    (READY, "unblock"): (READY, None, False),
    (WAIT, "unblock"): (NIL, None, False),
    (PARKED, "unblock"): (NIL, None, True),
    # the driver takes its waiter back
    (NIL, "abort"): (NIL, 0, False),
    (READY, "abort"): (READY, 0, False),
    (WAIT, "abort"): (NIL, 2, False),
    (PARKED, "abort"): (NIL, 1, False),
    # preparing for I/O, and the end of a wait
    (NIL, "reset"): (NIL, None, False),
    (READY, "reset"): (NIL, None, False),
    (NIL, "resume"): (NIL, 0, False),
    (READY, "resume"): (NIL, 1, False),
    (WAIT, "resume"): (NIL, 0, False),
    (PARKED, "resume"): (NIL, "corrupted", False),
}

# What epoll says -> which directions it concerns.
IN, PRI, OUT, ERR, HUP, RDHUP = 0x1, 0x2, 0x4, 0x8, 0x10, 0x2000


def directions(mask: int) -> list[int]:
    """Return the directions that an event with *mask* makes ready."""
    found = []
    if mask & IN or mask & RDHUP or mask & HUP or mask & ERR:
        found.append(READ)
    if mask & OUT or mask & HUP or mask & ERR:
        found.append(WRITE)
    return found


@dataclass
class Direction:
    """One semaphore, its waiter, its deadline."""

    state: str = NIL
    waiter: int = 0
    deadline: int = 0  # 0 none, -1 has passed, else a time
    in_heap: bool = False
    popped: bool = False  # taken out of the heap, not yet acted on, and still current

    def step(self, what: str) -> tuple[object, list[int]]:
        """Do *what*: what the caller is told and the waiters that are woken."""
        self.state, answer, wakes = TABLE[self.state, what]
        return answer, [self.waiter] if wakes else []

    def set_deadline(self, when: int) -> list[int]:
        """Set the deadline; the waiters woken at once."""
        # Only a move to later leaves a timer that has just been popped in force.
        if not 0 < self.deadline <= when:
            self.popped = False
        self.deadline = max(when, -1)
        self.in_heap = self.deadline > 0 and not self.popped
        return self.step("unblock")[1] if self.deadline < 0 else []

    def fire(self, now: int) -> list[int]:
        """Act on a popped timer; the woken waiters."""
        if not self.popped:
            return []
        self.popped = False
        if self.deadline > now:
            self.in_heap = True
            return []
        self.deadline = -1
        return self.step("unblock")[1]


@dataclass
class Descriptor:
    """An open pollDesc."""

    closing: bool = False
    event_error: bool = False
    tried: bool = False  # a reader has been told to try again since
    sides: dict[int, Direction] = field(
        default_factory=lambda: {READ: Direction(), WRITE: Direction()}
    )

    def error(self, mode: int) -> int:
        """Return why *mode* cannot go on: closing, then the deadline."""
        if self.closing:
            return 1
        return 2 if self.sides[mode].deadline < 0 else 0

    def scan(self, mode: int) -> int | None:
        """Return what keeps *mode* from waiting if the last event was an error alone."""
        if mode == WRITE or not self.event_error:
            return None
        self.tried, tried = True, self.tried
        return 3 if tried else 0

    def event(self, mask: int) -> list[int]:
        """Apply an event; the woken waiters, reader first."""
        found = directions(mask)
        if found:
            self.event_error = mask == ERR
            self.tried = False
        return [word for mode in found for word in self.sides[mode].step("event")[1]]

    def evict(self) -> list[int]:
        """Close for waiters; the woken ones."""
        self.closing = True
        woken = []
        for side in self.sides.values():
            woken += side.step("unblock")[1]
            side.in_heap = side.popped = False
        return woken

    @property
    def parked(self) -> int:
        """How many waiters are parked."""
        return sum(side.state == PARKED for side in self.sides.values())

    @property
    def timers(self) -> int:
        """How many of its timers stand in the heap."""
        return sum(side.in_heap for side in self.sides.values())
