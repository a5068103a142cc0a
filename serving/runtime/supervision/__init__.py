"""One service as several worker processes on one port: the supervisor's side."""
