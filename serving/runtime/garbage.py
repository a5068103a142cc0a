"""Tuning of the garbage collector: calls leave almost nothing for it to collect, so it should scan little."""

from __future__ import annotations

import gc
from typing import Final

# Number of new live objects that triggers a scan of the youngest generation: that of a thousand calls in flight.
_YOUNG_OBJECTS: Final = 50_000


def settle() -> None:
    """Exempt the existing objects, which live as long as the process, from scans, and scan the rest less often."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG_OBJECTS, *gc.get_threshold()[1:])
