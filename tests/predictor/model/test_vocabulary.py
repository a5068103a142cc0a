from __future__ import annotations

import io
import json
import pickle
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from predictor.model.tokenizer import basic_english
from predictor.model.vocabulary import Vocabulary, read_vocabulary
from serving.domain.errors import ForbiddenPickle, InvalidModelFile
from tests.conftest import SHARED, shared
from tests.fakes.torchtext import (
    FakeInnerVocab,
    FakeModernVocab,
    fake_torchtext,
    legacy_vocab,
    modern_vocab,
    old_legacy_vocab,
    scripted_vocab,
)
from tests.predictor.builders import saved
from tests.predictor.model.files.hostile import ORDERED_DICT, VOCAB, program, text
from tests.serving.refusals import refused

GOLDEN = SHARED / "golden/torchtext"
UNKNOWN = "zzz-no-such-token"


@pytest.fixture
def torchtext() -> Iterator[None]:
    with fake_torchtext():
        yield


# Recorded files and answers of the real torchtext.


def recorded(kind: str) -> list[str]:
    """Return the recorded cases of this kind, or one that is skipped if the recordings are missing."""
    return sorted(str(path.relative_to(GOLDEN).with_suffix("")) for path in GOLDEN.glob(f"{kind}.pth")) or ["missing"]


def case(name: str, extension: str = ".pth") -> tuple[Vocabulary, dict[str, Any]]:
    """Return a recorded vocabulary, as our reader reads it, and the answers of the real one."""
    path = shared(f"golden/torchtext/{name}{extension}")
    answers: dict[str, Any] = json.loads(path.with_suffix(".json").read_text())
    return read_vocabulary(path.read_bytes()), answers


def returned(answer: Any) -> int | None:
    """Return the recorded index, ``None`` where torchtext raised or answered None."""
    index = answer.get("returned") if isinstance(answer, dict) else answer
    return index if isinstance(index, int) else None


@pytest.mark.parametrize("name", [name for name in recorded("*") if "word_vocab_" not in name])
def test_a_recorded_vocabulary_answers_as_torchtext_0_18_did(name: str) -> None:
    vocabulary, answers = case(name)
    assert list(vocabulary.tokens) == answers["itos"]
    assert len(vocabulary) == answers["len"]
    assert vocabulary.default_index == answers["default_index"]
    for token, index in answers["lookups"].items():
        assert vocabulary.lookup(token) == returned(index), token
    for token, known in answers["contains"].items():
        assert (token in vocabulary.indices) == known, token
    asked = answers["lookup_indices"]
    found = [vocabulary.lookup(token) for token in asked["tokens"]]
    assert found == asked["result"].get("returned", found)
    # torchtext raised only for a token without an index.
    assert ("returned" in asked["result"]) == (None not in found)
    assert vocabulary.lookup(UNKNOWN) == returned(answers["oov_lookup"])


@pytest.mark.parametrize("name", recorded("legacy/*"))
def test_a_recorded_vocabulary_answers_as_the_release_that_wrote_it(name: str) -> None:
    vocabulary, answers = case(name)
    assert list(vocabulary.tokens) == answers["itos"]
    assert len(vocabulary) == answers["len"]
    # If a release has both kinds of lookup, serving code of its time queried the vocabulary itself.
    for token, index in (answers.get("getitem") or answers.get("stoi_getitem") or {}).items():
        assert vocabulary.lookup(token) == returned(index), token
    if isinstance(answers.get("default_index"), int | None) and "modern" in name:
        assert vocabulary.default_index == answers["default_index"]
    if isinstance(answers.get("unk_index"), int | None) and "legacy_" in name:
        assert vocabulary.default_index == answers["unk_index"]
    assert dict(vocabulary.indices) == answers.get("stoi", dict(vocabulary.indices))


def test_every_file_of_the_recordings_is_asked_above() -> None:
    shared("golden/torchtext")
    assert len(recorded("*")) == 13
    assert len(recorded("legacy/*")) == 33


WORD_VOCAB_FILES = [
    "word_vocab_in_dict.pth",
    "word_vocab_itos_list.pth",
    "word_vocab_stoi_dict.pth",
    "word_vocab_scriptobject.pth",
    "word_vocab_p2.pkl",
    "word_vocab_p3.pkl",
    "word_vocab_p4.pkl",
    "word_vocab_p5.pkl",
]


@pytest.mark.parametrize("name", WORD_VOCAB_FILES)
def test_one_vocabulary_is_the_same_in_every_form_it_was_saved_in(name: str) -> None:
    vocabulary, _ = case("word_vocab")
    assert read_vocabulary(shared(f"golden/torchtext/{name}").read_bytes()) == vocabulary


@pytest.mark.parametrize("name", ["word_vocab", "char_vocab"])
def test_recorded_texts_are_encoded_as_torchtext_encoded_them(name: str) -> None:
    vocabulary, answers = case(name)
    tokenize: Callable[[str], Sequence[str]] = basic_english if name == "word_vocab" else list
    for encoded in answers["encoded"]:
        assert [vocabulary.lookup(token) for token in tokenize(encoded["text"])] == encoded["ids"]


def test_the_vocabulary_of_the_book_is_read() -> None:
    vocabulary = read_vocabulary(shared("seed-model/1/vocab.pth").read_bytes())
    assert "a" in vocabulary.indices
    assert all(vocabulary.lookup(token) == index for index, token in enumerate(vocabulary.tokens))


# Forms that are not recorded.

TOKENS = ["<unk>", "the", "", " ", "é", "日本", "😀", "\0", "x" * 47, "x" * 48, "x" * 300]


@pytest.mark.usefixtures("torchtext")
@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "before-1.6"])
@pytest.mark.parametrize("default", [None, 0, 3, -1])
def test_a_modern_vocabulary_is_read_from_both_containers(legacy: bool, default: int | None) -> None:
    data = saved(modern_vocab(TOKENS, default), legacy=legacy)
    assert (text("module") in data) == legacy
    assert read_vocabulary(data) == Vocabulary.of(TOKENS, default)
    assert read_vocabulary(saved(scripted_vocab(TOKENS, default), legacy=legacy)) == Vocabulary.of(TOKENS, default)


@pytest.mark.usefixtures("torchtext")
@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "before-1.6"])
def test_a_legacy_vocabulary_is_read_from_both_containers(legacy: bool) -> None:
    for tokens, default in ((TOKENS, 0), (["a", "b"], None), (["a", "<unk>"], 1)):
        assert read_vocabulary(saved(legacy_vocab(tokens), legacy=legacy)) == Vocabulary.of(tokens, default)
        # Until 0.3, every unknown token has the index of the first token, whatever that token is.
        assert read_vocabulary(saved(old_legacy_vocab(tokens), legacy=legacy)) == Vocabulary.of(tokens, 0)


@pytest.mark.usefixtures("torchtext")
@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "before-1.6"])
def test_the_vectors_of_a_legacy_vocabulary_are_passed_over(legacy: bool) -> None:
    vocab = legacy_vocab(TOKENS, vectors=torch.ones(len(TOKENS), 4))
    assert read_vocabulary(saved(vocab, legacy=legacy)) == Vocabulary.of(TOKENS, 0)


@pytest.mark.usefixtures("torchtext")
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("make", [modern_vocab, scripted_vocab, legacy_vocab, old_legacy_vocab])
def test_every_kind_is_read_in_every_protocol(make: Callable[[Sequence[str]], object], protocol: int) -> None:
    expected = read_vocabulary(saved(make(TOKENS)))
    assert list(expected.tokens) == TOKENS
    assert read_vocabulary(pickle.dumps(make(TOKENS), protocol)) == expected
    buffer = io.BytesIO()
    torch.save(make(TOKENS), buffer, pickle_protocol=protocol)
    assert read_vocabulary(buffer.getvalue()) == expected


@pytest.mark.usefixtures("torchtext")
@pytest.mark.parametrize("count", [0, 1, 255, 256, 257, 999, 1000, 1001, 70_000])
@pytest.mark.parametrize("length", [1, 60])
def test_a_vocabulary_of_any_size_is_read_whole(count: int, length: int) -> None:
    tokens = [f"{number:x}".rjust(length, "é") for number in range(count)]
    assert read_vocabulary(saved(modern_vocab(tokens, 0))) == Vocabulary.of(tokens, 0)


@given(st.lists(st.text(max_size=80), unique=True, max_size=50), st.none() | st.integers(-(1 << 63), (1 << 63) - 1))
@settings(max_examples=60)
@example(["vocab", "itos", "stoi"], 1)
def test_any_distinct_tokens_survive_every_form(tokens: list[str], default: int | None) -> None:
    with fake_torchtext():
        for legacy in (False, True):
            expected = Vocabulary.of(tokens, default)
            assert read_vocabulary(saved(modern_vocab(tokens, default), legacy=legacy)) == expected
            assert read_vocabulary(saved({"vocab": modern_vocab(tokens, default)}, legacy=legacy)) == expected
            read = read_vocabulary(saved(legacy_vocab(tokens), legacy=legacy))
            assert (read.tokens, read.indices) == (expected.tokens, expected.indices)
            if tokens:
                plain = Vocabulary.of(tokens, expected.indices.get("<unk>"))
                assert read_vocabulary(saved(tokens, legacy=legacy)) == plain
                assert read_vocabulary(saved(dict(expected.indices), legacy=legacy)) == plain


def test_a_dictionary_is_ordered_by_its_indices() -> None:
    assert read_vocabulary(saved({"c": 2, "<unk>": 0, "vocab": 1})) == Vocabulary.of(["<unk>", "vocab", "c"], 0)


# Contents that are refused.


@pytest.mark.usefixtures("torchtext")
def test_a_token_that_stands_twice_is_refused() -> None:
    for value in (modern_vocab(["a", "b", "a"]), ["a", "a"], {"vocab": ["a", "a"]}):
        with refused(InvalidModelFile, match="twice"):
            read_vocabulary(saved(value))


@pytest.mark.parametrize("indices", [{"a": 0, "b": 0}, {"a": 1, "b": 2}, {"a": 0, "b": 2}, {"a": -1, "b": 0}], ids=str)
def test_a_dictionary_with_gaps_or_duplicates_is_refused(indices: dict[str, int]) -> None:
    with refused(InvalidModelFile, match="gaps or duplicates"):
        read_vocabulary(saved(indices))


NO_VOCABULARIES: dict[str, Callable[[], object]] = {
    "nothing": lambda: None,
    "text": lambda: "abc",
    "number": lambda: 7,
    "tensor": lambda: torch.ones(3),
    "numbers": lambda: [1, 2],
    "mixed": lambda: ["a", 1],
    "pairs": lambda: [("a", 0)],
    "dictionary-of-texts": lambda: {"a": "b"},
    "dictionary-of-truths": lambda: {"a": False, "b": True},
    "dictionary-of-floats": lambda: {"a": 0.0},
    "numbered": lambda: {0: "a"},
    "nested-twice": lambda: {"vocab": {"vocab": ["a"]}},
    "empty-list": list,
    "state-dict-of-a-vocabulary": lambda: modern_vocab(["a"]).state_dict(),
    "state-dict": lambda: {"embedding.weight": torch.ones(3, 3)},
    "older-version": lambda: modern_vocab(["a"], version="0.0.0"),
    "no-version": lambda: FakeModernVocab(FakeInnerVocab(([], ["a"], []))),
    "tensors-inside": lambda: FakeModernVocab(FakeInnerVocab(("0.0.2", [], ["a"], [torch.ones(1)]))),
    "tokens-no-text": lambda: FakeModernVocab(FakeInnerVocab(("0.0.2", [], [1], []))),
    "default-no-number": lambda: FakeModernVocab(FakeInnerVocab(("0.0.2", ["0"], ["a"], []))),
    "default-truth": lambda: FakeModernVocab(FakeInnerVocab(("0.0.2", [True], ["a"], []))),
    "no-inner": lambda: FakeModernVocab(None),
    "inner-list": lambda: FakeModernVocab(["a"]),
    "experimental-empty": lambda: modern_vocab([], version="0.0.1"),
    "experimental-without-its-unknown": lambda: modern_vocab(["a", "b"], version="0.0.1"),
    "legacy-without-indices": lambda: legacy_vocab(["a"], stoi=None),
    "legacy-indices-no-numbers": lambda: legacy_vocab(["a"], stoi={"a": "0"}),
    "legacy-tokens-no-text": lambda: legacy_vocab(["a"], itos=[1]),
    "legacy-tokens-no-list": lambda: legacy_vocab(["a"], itos="a"),
}


@pytest.mark.usefixtures("torchtext")
@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "before-1.6"])
@pytest.mark.parametrize("name", NO_VOCABULARIES)
def test_what_is_no_vocabulary_is_refused(name: str, legacy: bool) -> None:
    with refused(InvalidModelFile):
        read_vocabulary(saved(NO_VOCABULARIES[name](), legacy=legacy))


def test_an_instance_of_another_kind_is_refused() -> None:
    for operations in (VOCAB, VOCAB + b"Nb", VOCAB + b"]b", ORDERED_DICT + b")R" + text("a") + b"Ns"):
        with refused(InvalidModelFile):
            read_vocabulary(program(operations))


@pytest.mark.parametrize("value", [torch.nn.Linear(2, 2), Path("x"), pytest], ids=["module", "path", "python-module"])
def test_objects_that_are_no_part_of_vocabularies_are_forbidden(value: object) -> None:
    if value is pytest:
        value = {"vocab": pytest.MonkeyPatch}
    with refused(ForbiddenPickle):
        read_vocabulary(saved(value))


# Damage.

SMALL_FILES = ["legacy/legacy_0.6.0_small.pth", "vocab_mutated.pth", "legacy/modern_0.9.1_experimental_unkmid.pth"]
BARE_FILES = ["word_vocab_p2.pkl", "word_vocab_p5.pkl"]


def answer(data: bytes) -> Vocabulary | None:
    """Return the vocabulary, or ``None`` if it is refused; any other outcome fails the test."""
    try:
        vocabulary = read_vocabulary(data)
    except InvalidModelFile:
        return None
    assert all(isinstance(token, str) for token in vocabulary.tokens)
    assert all(type(index) is int for index in vocabulary.indices.values())
    return vocabulary


@given(st.binary(max_size=300))
@example(b"PK\x03\x04")
@example(b"PK\x05\x06" + b"\0" * 18)
@example(b"\x80\x02")
def test_random_bytes_are_refused_or_read(data: bytes) -> None:
    answer(data)
    answer(b"PK\x03\x04" + data)
    answer(b"\x80\x02" + data)


@st.composite
def mutations(draw: st.DrawFn, names: Sequence[str]) -> bytes:
    """Return a recorded file with up to four flipped bits, removed, inserted or repeated bytes, or an end cut off."""
    data = bytearray((GOLDEN / draw(st.sampled_from(names))).read_bytes())
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, max(len(data) - 1, 0)))
        match draw(st.sampled_from(["flip", "set", "delete", "insert", "repeat", "cut"])):
            case "flip" if data:
                data[place] ^= 1 << draw(st.integers(0, 7))
            case "set" if data:
                data[place] = draw(st.integers(0, 255))
            case "delete":
                del data[place : place + draw(st.integers(1, 20))]
            case "insert":
                data[place:place] = draw(st.binary(min_size=1, max_size=8))
            case "repeat":
                data[place:place] = data[place : place + 30]
            case "cut":
                del data[place:]
    return bytes(data)


@pytest.mark.parametrize("names", [SMALL_FILES, BARE_FILES], ids=["torch.save", "pickle.dump"])
def test_a_damaged_recording_is_refused_or_read(names: list[str]) -> None:
    shared("golden/torchtext")

    @given(mutations(names))
    @settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow], deadline=None)
    def holds(data: bytes) -> None:
        answer(data)

    holds()


@pytest.mark.parametrize("cut", [0, 1, 100, 0.5, -30])
def test_a_recording_that_is_cut_off_is_refused(cut: float) -> None:
    for name in [*SMALL_FILES, *BARE_FILES]:
        data = shared(f"golden/torchtext/{name}").read_bytes()
        end = len(data) // 2 if cut == 0.5 else int(cut)
        with refused(InvalidModelFile):
            read_vocabulary(data[:end])
