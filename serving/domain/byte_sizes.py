"""Numbers of bytes as people write them."""

from __future__ import annotations

import re
from typing import Annotated, Any, Final, TypeAlias

from pydantic import BeforeValidator, ByteSize, TypeAdapter

_SIZE: Final = re.compile(r"\s*[0-9]*\.?[0-9]+\s*(?P<unit>[A-Za-z]*)\s*")
_KUBERNETES: Final = re.compile(r"[KMGTPE]i", re.IGNORECASE)
_PYDANTIC: Final = TypeAdapter(ByteSize)


def _in_bytes(value: Any) -> Any:
    """Return the number of bytes of a size that is written with its unit. Raises ValueError."""
    if not isinstance(value, str):
        return value
    found = _SIZE.fullmatch(value)
    if found is None:
        raise ValueError("write a number of bytes, or a size such as 512MiB, 1Gi or 2GB")
    return int(_PYDANTIC.validate_python(f"{value.rstrip()}B" if _KUBERNETES.fullmatch(found["unit"]) else value))


Bytes: TypeAlias = Annotated[int, BeforeValidator(_in_bytes)]
"""Number of bytes: ``1048576``, ``2GB`` (powers of 1000), ``512MiB`` (powers of 1024), or ``1Gi`` as in Kubernetes."""
