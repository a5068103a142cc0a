"""Strict parser of external JSON: refuses what Python's own parser accepts beyond the standard or ambiguously."""

from __future__ import annotations

import json
import math
from collections import Counter
from typing import Any, Final

from intent_serving_client.text_files import without_mark

_LONGEST_KEY_SHOWN: Final = 64


class NotStrictJson(ValueError):
    """The data is not one JSON value in UTF-8; the message says why, in plain words."""


def parse_json(data: bytes) -> Any:
    """Return the value that ``data`` holds, after a byte order mark, if there is one.

    Raises:
        NotStrictJson: the data is not UTF-8, is not JSON, or has a duplicate key, a number that is not finite or has
            thousands of digits, text that is not Unicode, or too deep nesting.
    """
    try:
        text = without_mark(data).decode("utf-8")
        value = json.loads(
            text, object_pairs_hook=_object_without_duplicates, parse_constant=_refuse_constant, parse_float=_finite
        )
        if "\\u" in text:
            # A lone surrogate, such as "\ud800", could neither be forwarded nor written back.
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except RecursionError as error:
        raise NotStrictJson("it is nested too deeply") from error
    except NotStrictJson:
        raise
    # The chain ends here: both errors hold the whole text, which would go into the log.
    except json.JSONDecodeError as error:
        raise NotStrictJson(f"it is not valid JSON at line {error.lineno}, column {error.colno}") from None
    except UnicodeError:
        raise NotStrictJson("its text is not valid UTF-8") from None
    except ValueError as error:
        raise NotStrictJson("a number has too many digits") from error
    return value


def _object_without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        twice, _ = Counter(key for key, _ in pairs).most_common(1)[0]
        raise NotStrictJson(f"the key {json.dumps(twice[:_LONGEST_KEY_SHOWN])} appears twice in one object")
    return result


def _refuse_constant(name: str) -> float:
    raise NotStrictJson(f"{name} is not a JSON number")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise NotStrictJson("a number is out of range")
    return value
