"""The command line of the project: start, ask, list, train."""
