"""CPython's own test_selectors, run against NetpollSelector by the interpreter it comes with.

Its EpollSelectorTestCase is run once with our class in the place of EpollSelector. What it skips
is a strict list: a case that is skipped and not listed fails, and so does one that is not any more.
"""

import importlib
import unittest

import pytest

from gopoll.embed.selector import NetpollSelector

SUITE = "test.test_selectors"
# What CPython's suite skips for us, and why.
SKIPPED = {
    "test_modify_unregister": "it patches the epoll object inside of EpollSelector, by that name; "
    "test_selector.py has test_a_modify_that_fails_unregisters instead",
}
CASES_AT_LEAST = 18


def load():
    """Return CPython's module, or skip where the interpreter comes without its tests."""
    try:
        return importlib.import_module(SUITE)
    except ModuleNotFoundError as why:
        pytest.skip(f"this Python comes without its tests ({why.name})")


def run(selector):
    """Run CPython's EpollSelectorTestCase with *selector*; return unittest's result."""
    suite = load()
    case = type("Case", (suite.EpollSelectorTestCase,), {"SELECTOR": selector})
    result = unittest.TestResult()
    unittest.defaultTestLoader.loadTestsFromTestCase(case).run(result)
    return result


@pytest.mark.filterwarnings("default")
def test_cpythons_suite():
    result = run(NetpollSelector)
    assert [text for _, text in result.failures + result.errors] == []
    assert {case._testMethodName for case, _ in result.skipped} == set(SKIPPED)
    assert result.testsRun >= CASES_AT_LEAST
    print(f"{result.testsRun} run, {len(result.skipped)} skipped")


class NeverWritable(NetpollSelector):
    """Wrong on purpose."""

    def select(self, timeout=None):
        return [(key, events & 1) for key, events in super().select(timeout) if events & 1]


@pytest.mark.filterwarnings("default")
def test_a_wrong_selector_is_found():
    result = run(NeverWritable)
    assert result.failures + result.errors
