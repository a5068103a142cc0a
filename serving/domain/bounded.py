"""Bounds on the collections in JSON that others wrote, checked before their elements are.

Pydantic checks every element, and describes each fault in about a kilobyte: a megabyte of ``0,0,0`` in place of a list
of objects would take a gigabyte of memory.
"""

from __future__ import annotations

from typing import Final

from pydantic import BaseModel, BeforeValidator, ConfigDict, model_validator

_MOST_KEYS: Final = 32
"""Maximum number of keys of an object, several times that of any kind of object here."""


class Part(BaseModel):
    """Base of objects that have a closed set of keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _with_few_keys(cls, value: object) -> object:
        return _checked(value, _MOST_KEYS)


def at_most(count: int) -> BeforeValidator:
    """Return a validator that refuses a list or an object with more elements than ``count``."""
    return BeforeValidator(lambda value: _checked(value, count))


def _checked(value: object, most: int) -> object:
    if isinstance(value, list | tuple | dict) and len(value) > most:
        raise ValueError(f"has {len(value)} elements; at most {most} are read")
    return value
