"""The closed grammar of model ids. An id in it is safe as the name of a folder, in a log line and as a key.

A model stands in a folder of its own, `id`, or is a version of a name that has several, `name@version`. Callers may
also write `name` alone, or `name@label`: what that means, the release of the name tells.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple, NewType

from serving.domain.errors import InvalidModelId

ModelId = NewType("ModelId", str)
"""A model id that has passed :func:`parse_model_id`; only these reach the file system."""

MAX_MODEL_ID_BYTES: Final = 128
"""Of a name, and of a version or a label."""
VERSION_MARK: Final = "@"

_NAME: Final = rf"[A-Za-z0-9_-][A-Za-z0-9._-]{{0,{MAX_MODEL_ID_BYTES - 1}}}"
_GRAMMAR: Final = re.compile(rf"{_NAME}(?:{VERSION_MARK}{_NAME})?")
_RULE: Final = f"1 to {MAX_MODEL_ID_BYTES} ASCII letters, digits, '.', '_' or '-', not starting with '.'"


class ModelReference(NamedTuple):
    """What a caller asks for: a name, and perhaps which of its versions."""

    name: ModelId
    selector: str = ""
    """A version, or a label of the release; empty: what the release says."""


def parse_model_id(text: str) -> ModelId:
    """Return ``text`` as a model id.

    Ids are 1 to 128 ASCII letters, digits, ``.``, ``_`` and ``-``, not starting with ``.``; a version of the same
    grammar may follow behind ``@``.

    Raises:
        InvalidModelId: ``text`` is anything else. The message does not repeat it, so that no log line is forged.
    """
    # fullmatch, because `$` also matches before a final newline.
    if not _GRAMMAR.fullmatch(text):
        raise InvalidModelId(f"runId must be {_RULE}; '@' and a version of the same letters may follow")
    return ModelId(text)


def parse_model_name(text: str) -> ModelId:
    """Return ``text`` as a model id without a version, or as a version or label alone.

    Raises:
        InvalidModelId: it is anything else.
    """
    if VERSION_MARK in text or not _GRAMMAR.fullmatch(text):
        raise InvalidModelId(f"names of models, versions and labels must be {_RULE}")
    return ModelId(text)


def parse_model_ids(text: str) -> tuple[ModelId, ...]:
    """Return the model ids that a person wrote with commas between them.

    Raises:
        InvalidModelId: one of them is no model id.
    """
    return tuple(parse_model_id(part) for part in (part.strip() for part in text.split(",")) if part)


def reference_of(model_id: ModelId) -> ModelReference:
    """Return the two parts of a model id."""
    name, _, selector = model_id.partition(VERSION_MARK)
    return ModelReference(ModelId(name), selector)


def versioned(name: ModelId, version: str) -> ModelId:
    """Return the model id of a version. REQUIRES: ``version`` passed :func:`parse_model_name`."""
    return ModelId(f"{name}{VERSION_MARK}{version}")
