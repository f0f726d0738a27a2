"""A fixture: a Poller of the test's own."""

import pytest

from gopoll import Poller


@pytest.fixture
def poller():
    """Return a Poller, closed afterwards."""
    poller = Poller()
    yield poller
    poller.close()
