"""Fixtures: a Poller of the test's own; below it, in C, a pollServer and a descriptor for it."""

import os

import pytest

from gopoll import Poller


@pytest.fixture
def poller():
    """Return a Poller, closed afterwards."""
    poller = Poller()
    yield poller
    poller.close()


@pytest.fixture
def server(probe):
    """Return a pollServer that has begun, closed afterwards."""
    server = probe.Server()
    assert server.init() == 0
    yield server
    server.close()


@pytest.fixture
def fd():
    """Return an eventfd: writable, not readable."""
    fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
    yield fd
    os.close(fd)
