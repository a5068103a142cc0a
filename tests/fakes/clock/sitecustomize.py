"""A fake clock for a whole process: FAKE_CLOCK_SECONDS off the clock that stamps the files of the volume.

Python imports this module at its start if the folder is in PYTHONPATH. Only the time of day is off, as it is on a
machine whose clock is wrong; monotonic clocks are not.
"""

# ruff: noqa: INP001 - Python finds this module by its folder alone.

from __future__ import annotations

import os
import time

_OFF = float(os.environ.get("FAKE_CLOCK_SECONDS", "0"))
_time, _time_ns = time.time, time.time_ns
time.time = lambda: _time() + _OFF
time.time_ns = lambda: _time_ns() + int(_OFF * 1e9)
