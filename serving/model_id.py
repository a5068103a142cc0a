"""The closed grammar of model ids. An id in it is safe as the name of a folder, in a log line and as a key."""

from __future__ import annotations

import re
from typing import Final, NewType

from serving.errors import InvalidModelId

ModelId = NewType("ModelId", str)
"""A model id that has passed :func:`parse_model_id`; only these reach the file system."""

MAX_MODEL_ID_BYTES: Final = 128

_GRAMMAR: Final = re.compile(rf"[A-Za-z0-9_-][A-Za-z0-9._-]{{0,{MAX_MODEL_ID_BYTES - 1}}}")


def parse_model_id(text: str) -> ModelId:
    """Return ``text`` as a model id.

    Ids are 1 to 128 ASCII letters, digits, ``.``, ``_`` and ``-``, not starting with ``.``.

    Raises:
        InvalidModelId: ``text`` is anything else. The message does not repeat it, so that no log line is forged.
    """
    # fullmatch, because `$` also matches before a final newline.
    if not _GRAMMAR.fullmatch(text):
        raise InvalidModelId(
            f"runId must be 1 to {MAX_MODEL_ID_BYTES} ASCII letters, digits, '.', '_' or '-', not starting with '.'"
        )
    return ModelId(text)


def parse_model_ids(text: str) -> tuple[ModelId, ...]:
    """Return the model ids that a person wrote with commas between them.

    Raises:
        InvalidModelId: one of them is no model id.
    """
    return tuple(parse_model_id(part) for part in (part.strip() for part in text.split(",")) if part)
