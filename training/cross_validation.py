"""Division of texts into parts, each of which is held out from one training."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from random import Random
from typing import Final

from training.data import Example
from training.errors import BadData

PARTS: Final = 5
"""Number of parts, and of models that are each trained only to answer the texts of one part."""


def parts_of(rows: Sequence[Example], seed: int) -> list[list[int]]:
    """Return the indices of the rows of each part: every label is divided among the parts as evenly as possible.

    The only row of a label is in no part, because a model without that label would be another one.

    Raises:
        BadData: no label has two rows.
    """
    rows_of: dict[str, list[int]] = defaultdict(list)
    for index, row in enumerate(rows):
        rows_of[row.label].append(index)
    random = Random(seed)  # noqa: S311 - not a secret
    divided = [index for same in rows_of.values() if len(same) > 1 for index in random.sample(same, len(same))]
    if not divided:
        raise BadData("no label has two rows, so the model's scores cannot be calibrated; add rows")
    parts = (sorted(divided[start::PARTS]) for start in range(PARTS))
    return [part for part in parts if part]
