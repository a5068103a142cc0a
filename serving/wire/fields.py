"""Objects whose fields have the names of a message's fields."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Kind = TypeVar("Kind", bound="DataclassInstance")


def from_message(kind: type[Kind], message: Any, **others: Any) -> Kind:
    """Return a dataclass with the fields of ``message``; ``others`` are fields that the message has in another form."""
    return kind(**{f.name: getattr(message, f.name) for f in fields(kind) if f.name not in others}, **others)
