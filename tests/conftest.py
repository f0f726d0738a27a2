"""What every test gets: the leak guard, the head of the report, probes, Ctrl-C, the skip ledger."""

pytest_plugins = [
    "plugins.hang",  # before guard, which imports it
    "plugins.guard",
    "plugins.header",
    "plugins.probe",
    "plugins.open",
    "plugins.sigint",
    "plugins.skips",
]
