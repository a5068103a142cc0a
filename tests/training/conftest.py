from __future__ import annotations

import pytest

from training.data import DataSet, Example

_WORDS = {
    "weather": ["rain", "sun", "cold", "warm", "wind"],
    "music": ["song", "band", "volume", "album", "play"],
    "oos": ["banana", "quantum", "gravel", "marmalade", "zebra"],
}


def _rows(form: str) -> tuple[Example, ...]:
    return tuple(Example(form.format(word), label) for label, words in _WORDS.items() for word in words)


@pytest.fixture
def tiny() -> DataSet:
    """Return a data set of three labels, which differ in words that occur in every split."""
    return DataSet(_rows("tell me of the {}") + _rows("{} please"), _rows("is it {}"), _rows("what {}"), ())
