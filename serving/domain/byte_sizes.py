"""Numbers of bytes as people write them."""

from __future__ import annotations

import re
from typing import Annotated, Any, Final, TypeAlias

from pydantic import BeforeValidator, ByteSize

_KUBERNETES: Final = re.compile(r"\s*[0-9.]+\s*[KMGTPE]i\s*", re.IGNORECASE)


def _with_unit(value: Any) -> Any:
    """Return ``1Gi``, as Kubernetes writes it, in pydantic's notation, ``1GiB``."""
    return f"{value.rstrip()}B" if isinstance(value, str) and _KUBERNETES.fullmatch(value) else value


Bytes: TypeAlias = Annotated[ByteSize, BeforeValidator(_with_unit)]
"""Number of bytes: ``1048576``, ``2GB`` (powers of 1000), ``512MiB`` (powers of 1024), or ``1Gi`` as in Kubernetes."""
