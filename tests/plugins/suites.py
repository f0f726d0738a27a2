"""How much of CPython's own asyncio suite is run: --cpython-asyncio.

Called by pytest, on the main thread. tests/embed/test_cpython_asyncio.py reads the option.
"""


def pytest_addoption(parser) -> None:
    """Add the option."""
    parser.getgroup("gopoll").addoption(
        "--cpython-asyncio",
        choices=("loop", "all"),
        default="loop",
        help="run of CPython's test_asyncio what concerns the loop, or all of it (default: loop)",
    )
