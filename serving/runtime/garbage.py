"""Tuning of the garbage collector: calls leave almost nothing for it to collect, so it should scan little."""

from __future__ import annotations

import gc
from typing import Final

# Live new objects that trigger a scan of the youngest generation: those of a thousand calls in flight.
_YOUNG_OBJECTS: Final = 50_000


def settle() -> None:
    """Exempt all existing objects, which live as long as the process, and scan the rest less often."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG_OBJECTS, *gc.get_threshold()[1:])
