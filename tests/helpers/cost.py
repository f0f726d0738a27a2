"""What many of a kind cost, against few: whether each takes a look at all the others.

Called by tests, on the thread that does the work.
"""

import gc
import time

TIMES = 16  # so many more of them
BOUND = 4  # and so much more for each: caches and the allocator have their part
ROUNDS = 5  # a machine that is busy with other things is no fault of the code's


def assert_each_costs_the_same(measure, few):
    """Have measure(n) return its CPU time, for *few* and for TIMES as many; AssertionError if each
    of the many takes more than BOUND times as long as each of the few, in every round.
    """
    seen = []
    for _ in range(ROUNDS):
        gc.collect()
        short, long = measure(few), measure(few * TIMES)
        seen.append(long / short / TIMES)
        if seen[-1] < BOUND:
            return
    raise AssertionError(f"{TIMES} times as many take, each, {seen} times as long")


def cpu_of(fn):
    """Return the CPU time that fn() takes of this thread, in seconds."""
    start = time.thread_time()
    fn()
    return time.thread_time() - start
