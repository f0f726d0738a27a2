"""What every test gets: leak guard, report head, probes, Ctrl-C, skip ledger, stress options."""

pytest_plugins = [
    "plugins.hang",  # before guard, which imports it
    "plugins.guard",
    "plugins.header",
    "plugins.probe",
    "plugins.poller",
    "plugins.sigint",
    "plugins.skips",
    "plugins.stress",
]
