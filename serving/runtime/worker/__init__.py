"""One worker process: the side that a supervisor starts."""
