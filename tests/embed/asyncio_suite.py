"""Run CPython's test_asyncio with EventLoop in the place of asyncio's: asyncio_suite.py NAMES.

A program of its own, started by test_cpython_asyncio.py: the suite changes policies, signals and
child watchers of the whole process. It prints a line of JSON: what has run, and each case that
failed or was skipped, with the reason. --wrong: with a loop that is wrong on purpose.
"""

import asyncio
import importlib
import json
import re
import sys
import time
import unittest
from asyncio import unix_events

from gopoll.embed.aio import EventLoop

PACKAGE = "test.test_asyncio"
# Cases for Windows, and the same cases once more with a selector that our loop does not take.
LEFT_OUT = re.compile(".*Proactor|(Poll|Select|Kqueue)EventLoopTests")


class Loop(EventLoop):
    """EventLoop as the suite makes loops: a selector that it is given is closed and not used."""

    def __init__(self, selector=None):
        if selector is not None:
            selector.close()
        super().__init__()


class Wrong(Loop):
    """Its callbacks get their arguments the wrong way round."""

    def call_soon(self, callback, *args, context=None):
        if args == ("hello", "world"):
            args = ("world", "hello")
        return super().call_soon(callback, *args, context=context)


def put_in_place(loop):
    """Make asyncio's own names, and its default policy, mean *loop*."""
    for module in (asyncio, unix_events):
        module.SelectorEventLoop = loop
        if hasattr(module, "EventLoop"):
            module.EventLoop = loop
    asyncio.DefaultEventLoopPolicy._loop_factory = loop


def cases(suite):
    """Yield the test cases in *suite*."""
    for test in suite:
        if isinstance(test, unittest.TestSuite):
            yield from cases(test)
        else:
            yield test


def name_of(test):
    """Return MODULE.CLASS.METHOD of a test case; a subtest's is that of its case."""
    test = getattr(test, "test_case", test)
    return test.id().removeprefix(f"{PACKAGE}.")


def chosen(names):
    """Return the suite of *names*: modules, classes or cases of the package."""
    out = unittest.TestSuite()
    for name in names:
        loaded = unittest.defaultTestLoader.loadTestsFromName(f"{PACKAGE}.{name}")
        out.addTests(t for t in cases(loaded) if not LEFT_OUT.match(type(t).__name__))
    return out


class Result(unittest.TextTestResult):
    """Also says how long each case took."""

    def startTest(self, test):  # noqa: N802
        self.since = time.monotonic()
        super().startTest(test)

    def stopTest(self, test):  # noqa: N802
        took[name_of(test)] = round(time.monotonic() - self.since, 2)
        super().stopTest(test)


took = {}


def main(names):
    """Run *names* and print what came of it."""
    importlib.import_module(PACKAGE)
    put_in_place(Wrong if "--wrong" in names else Loop)
    names = [name for name in names if name != "--wrong"]
    runner = unittest.TextTestRunner(verbosity=2, resultclass=Result, stream=sys.stderr)
    result = runner.run(chosen(names))
    told = {
        "run": result.testsRun,
        "failed": {name_of(t): text for t, text in result.failures + result.errors},
        "skipped": {name_of(t): text for t, text in result.skipped},
        "slow": dict(sorted(took.items(), key=lambda pair: -pair[1])[:20]),
    }
    print(json.dumps(told))


if __name__ == "__main__":
    main(sys.argv[1:])
