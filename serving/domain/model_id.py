"""The closed grammar of model ids. A valid id is safe as the name of a folder, in a log line and as a key.

A model is either in a folder of its own, `id`, or one of the versions of a name, `name@version`. Callers may also write
`name` alone, or `name@label`: the release of the name determines the version.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple, NewType

from serving.domain.errors import InvalidModelId

ModelId = NewType("ModelId", str)
"""Model id that has passed :func:`parse_model_id`; only such ids reach the file system."""

MAX_MODEL_ID_BYTES: Final = 128
"""Maximum length of a name, and of a version or a label."""
VERSION_MARK: Final = "@"

_NAME: Final = rf"[A-Za-z0-9_-][A-Za-z0-9._-]{{0,{MAX_MODEL_ID_BYTES - 1}}}"
_GRAMMAR: Final = re.compile(rf"{_NAME}(?:{VERSION_MARK}{_NAME})?")
_RULE: Final = f"1 to {MAX_MODEL_ID_BYTES} ASCII letters, digits, '.', '_' or '-', not starting with '.'"


class ModelReference(NamedTuple):
    """Model that a caller requests: a name and, optionally, one of its versions."""

    name: ModelId
    selector: str = ""
    """Version, or label of the release; empty: the release selects the version."""


def parse_model_id(text: str) -> ModelId:
    """Return ``text`` as a model id.

    Ids are 1 to 128 ASCII letters, digits, ``.``, ``_`` and ``-``, not starting with ``.``; a version of the same
    grammar may follow ``@``.

    Raises:
        InvalidModelId: ``text`` is anything else. The message does not repeat ``text``, which could forge log lines.
    """
    # fullmatch, because `$` also matches before a final newline.
    if not _GRAMMAR.fullmatch(text):
        raise InvalidModelId(f"runId must be {_RULE}; '@' and a version of the same characters may follow")
    return ModelId(text)


def parse_model_name(text: str) -> ModelId:
    """Return ``text`` as a model id without a version, or as a version or label alone.

    Raises:
        InvalidModelId: ``text`` is anything else.
    """
    if VERSION_MARK in text or not _GRAMMAR.fullmatch(text):
        raise InvalidModelId(f"names of models, versions and labels must be {_RULE}")
    return ModelId(text)


def parse_model_ids(text: str) -> tuple[ModelId, ...]:
    """Return the model ids in a comma-separated list written by a person.

    Raises:
        InvalidModelId: a part of the list is not a model id.
    """
    return tuple(parse_model_id(part) for part in (part.strip() for part in text.split(",")) if part)


def reference_of(model_id: ModelId) -> ModelReference:
    """Return the name and the selector of a model id."""
    name, _, selector = model_id.partition(VERSION_MARK)
    return ModelReference(ModelId(name), selector)


def versioned(name: ModelId, version: str) -> ModelId:
    """Return the model id of a version. REQUIRES: ``version`` passed :func:`parse_model_name`."""
    return ModelId(f"{name}{VERSION_MARK}{version}")
