from __future__ import annotations

import io
import json
import zipfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from predictor.model.vocabulary import Vocabulary, read_vocabulary
from tests.conftest import shared
from training.torchtext_file import pickled_vocabulary, vocabulary_file

# Unicode text without lone surrogates, which no UTF-8 file can contain.
TOKENS = st.lists(st.text(st.characters(codec="utf-8")), unique=True)
DEFAULTS = st.none() | st.integers(-(1 << 31), (1 << 31) - 1)


@pytest.mark.parametrize(
    "name",
    [
        "word_vocab",
        "char_vocab",
        "vocab_no_default",
        "vocab_default_minus1",
        "vocab_default_reset",
        "vocab_large",
        "vocab_empty",
        "vocab_mutated",
        "vocab_odd_tokens",
    ],
)
def test_the_pickle_is_to_the_byte_the_one_that_torchtext_wrote(name: str) -> None:
    recorded = json.loads(shared(f"golden/torchtext/{name}.json").read_text())
    with zipfile.ZipFile(shared(f"golden/torchtext/{name}.pth")) as archive:
        expected = archive.read(f"{name}/data.pkl")
    assert pickled_vocabulary(Vocabulary.of(recorded["itos"], recorded["default_index"])) == expected


@given(tokens=TOKENS, default=DEFAULTS)
def test_what_is_written_is_read_back(tokens: list[str], default: int | None) -> None:
    vocabulary = Vocabulary.of(tokens, default)
    assert read_vocabulary(vocabulary_file(vocabulary)) == vocabulary


@pytest.mark.parametrize("count", [0, 1, 2, 208, 209, 210, 999, 1000, 1001, 2001])
def test_vocabularies_of_every_size_are_read_back(count: int) -> None:
    vocabulary = Vocabulary.of((f"token{number}" for number in range(count)), 0)
    assert read_vocabulary(vocabulary_file(vocabulary)) == vocabulary


def test_the_container_is_that_of_torch_and_has_no_time_in_it() -> None:
    data = vocabulary_file(Vocabulary.of(["<unk>", "a"], 0))
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.namelist() == ["vocab/data.pkl", "vocab/byteorder", "vocab/version"]
        assert archive.read("vocab/version") == b"3\n"
        assert {member.compress_type for member in archive.infolist()} == {zipfile.ZIP_STORED}
        assert {member.date_time for member in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
