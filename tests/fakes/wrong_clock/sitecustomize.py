"""A fake clock: Python imports this module at its start and then believes another time of day than file servers do."""

# ruff: noqa: INP001 - Python finds this module by its folder alone.

from __future__ import annotations

import os
import time

_AHEAD_SECONDS = float(os.environ.get("FAKE_CLOCK_AHEAD_SECONDS", "0"))
_time, _time_ns = time.time, time.time_ns

time.time = lambda: _time() + _AHEAD_SECONDS
time.time_ns = lambda: _time_ns() + int(_AHEAD_SECONDS * 1e9)
