"""The subcommands of the command line, one module each; __main__ parses and reports."""
