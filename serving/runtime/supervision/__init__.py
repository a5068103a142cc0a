"""One service as several worker processes on one port: the side of the supervisor."""
