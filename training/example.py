"""Example for a manifest: a validation text that the model answers correctly, for a check before it goes live."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from serving.domain.manifest import ModelExample
from serving.domain.prediction import Prediction
from training.data import OUT_OF_SCOPE, Example

_MOST_CHARACTERS: Final = 200


def chosen_example(
    rows: Sequence[Example], answers: Sequence[Prediction], out_of_scope: str = OUT_OF_SCOPE
) -> ModelExample | None:
    """Return the correctly answered row with the highest score; ``None`` if no row qualifies.

    Rows in scope come first. Blank rows and rows of more than 200 characters are left out, because people read the
    example.

    Args:
        rows: rows of the validation split, or of the training split if there is none; never rows of the test split.
        answers: answers of the model, in the same order.
        out_of_scope: label of rows that are out of scope.
    """
    right = [
        (row.label != out_of_scope, answer.score, row)
        for row, answer in zip(rows, answers, strict=True)
        if answer.label == row.label and answer.fallback is None and 0 < len(row.text.strip()) <= _MOST_CHARACTERS
    ]
    if not right:
        return None
    _, _, row = max(right, key=lambda each: (each[0], each[1]))
    return ModelExample(document=row.text, label=row.label)
