"""What every test gets: leak guard, report head, probes, Ctrl-C, skip ledger, options."""

from hypothesis import HealthCheck, settings

pytest_plugins = [
    "plugins.hang",  # before guard, which imports it
    "plugins.guard",
    "plugins.header",
    "plugins.probe",
    "plugins.poller",
    "plugins.sigint",
    "plugins.skips",
    "plugins.stress",
    "plugins.suites",
]

# A machine that is busy, or a Python that is slow, is no fault of a strategy's.
settings.register_profile("gopoll", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("gopoll")
