"""Dataclasses made from objects with the same fields, such as messages."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Kind = TypeVar("Kind", bound="DataclassInstance")


def from_fields(kind: type[Kind], source: Any, **others: Any) -> Kind:
    """Return a dataclass with the fields of ``source``; ``others`` are fields that ``source`` has in another form."""
    return kind(**{f.name: getattr(source, f.name) for f in fields(kind) if f.name not in others}, **others)
