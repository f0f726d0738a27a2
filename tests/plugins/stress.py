"""How long the randomised tests go on, and from which seed: --stress and --stress-seed.

Called by pytest, on the main thread. The tests read the options by themselves.
"""

import pytest


def pytest_addoption(parser) -> None:
    """Add the options."""
    group = parser.getgroup("gopoll")
    group.addoption(
        "--stress",
        type=float,
        default=0,
        metavar="SECONDS",
        help="let each randomised test go on for so long (default: a few seconds)",
    )
    group.addoption(
        "--stress-seed",
        type=int,
        default=None,
        metavar="N",
        help="the seed of the randomised tests (default: one that is printed on failure)",
    )


def pytest_collection_modifyitems(config, items) -> None:
    """Give the long runs the time they ask for: pytest-timeout's limit is that of a short one."""
    seconds = config.getoption("--stress")
    if seconds:
        for item in items:
            if item.get_closest_marker("stress"):
                item.add_marker(pytest.mark.timeout(seconds + 120))
