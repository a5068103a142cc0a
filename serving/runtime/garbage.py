"""The garbage collector of a service: calls leave next to nothing for it, and it should not look for much."""

from __future__ import annotations

import gc
from typing import Final

# Objects that are made, and not let go of, before the youngest are looked through: those of a thousand calls in flight.
_YOUNG_OBJECTS: Final = 50_000


def settle() -> None:
    """Leave out what is there by now, which stays as long as the process, and look less often at the rest."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG_OBJECTS, *gc.get_threshold()[1:])
