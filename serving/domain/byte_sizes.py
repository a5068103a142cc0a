"""Numbers of bytes as people write them."""

from __future__ import annotations

import re
from typing import Annotated, Any, Final, TypeAlias

from pydantic import BeforeValidator, ByteSize

_SIZE: Final = re.compile(r"\s*[0-9]*\.?[0-9]+\s*(?P<unit>[A-Za-z]*)\s*")
_KUBERNETES: Final = re.compile(r"[KMGTPE]i", re.IGNORECASE)


def _with_unit(value: Any) -> Any:
    """Return ``1Gi``, as Kubernetes writes it, in pydantic's notation, ``1GiB``. Raises ValueError."""
    if not isinstance(value, str):
        return value
    found = _SIZE.fullmatch(value)
    if found is None:
        raise ValueError("write a number of bytes, or a size such as 512MiB, 1Gi or 2GB")
    return f"{value.rstrip()}B" if _KUBERNETES.fullmatch(found["unit"]) else value


Bytes: TypeAlias = Annotated[ByteSize, BeforeValidator(_with_unit)]
"""Number of bytes: ``1048576``, ``2GB`` (powers of 1000), ``512MiB`` (powers of 1024), or ``1Gi`` as in Kubernetes."""
