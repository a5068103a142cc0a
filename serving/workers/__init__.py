"""One service as several processes on one port, under a supervisor. ``docs/scaling.md`` says when and how."""
