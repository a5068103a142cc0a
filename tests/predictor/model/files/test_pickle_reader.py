from __future__ import annotations

import collections
import pickle
import struct
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from predictor.model.files.pickle_reader import CONTAINERS as CONTAINER_GLOBALS
from predictor.model.files.pickle_reader import Global, Instance, read_pickle
from predictor.model.files.tensors import read_state_dict
from predictor.model.vocabulary import read_vocabulary
from serving.domain.errors import ForbiddenPickle, InvalidModelFile
from tests.predictor.model.files.hostile import (
    CONTAINERS,
    HASH_BOMB,
    ORDERED_DICT,
    PLACES,
    VOCAB,
    ends_within,
    in_zip,
    named,
    named_from_stack,
    program,
    text,
)
from tests.serving.refusals import refused

THING = Global("module", "Thing")


def read(data: bytes) -> Any:
    return read_pickle(data, allowed={THING, *CONTAINER_GLOBALS})[0]


# Data.

NUMBERS = st.integers(min_value=-(1 << 2000), max_value=1 << 2000) | st.floats(allow_nan=False)
SCALARS = st.none() | st.booleans() | NUMBERS | st.text(st.characters(), max_size=60)
PLAIN = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner)
        | st.lists(inner).map(tuple)
        | st.dictionaries(st.text() | st.integers(-9, 9), inner, max_size=5)
    ),
    max_leaves=20,
)


@given(PLAIN, st.integers(2, 5))
def test_plain_data_is_read_as_the_pickler_of_python_wrote_it(value: object, protocol: int) -> None:
    data = pickle.dumps(value, protocol)
    assert read_pickle(data, allowed=()) == (value, len(data))


@given(st.binary(max_size=400), st.integers(3, 5))
def test_bytes_are_read_as_they_are(value: bytes, protocol: int) -> None:
    assert read(pickle.dumps([value], protocol)) == [value]


LENGTHS = [0, 1, 2, 46, 47, 48, 49, 254, 255, 256, 257, 65_536]


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize(
    "strings",
    [
        [f"token{number}" for number in range(10_000)],
        [f"token{number % 7}" for number in range(10_000)],
        ["é" * (number % 30) + str(number) for number in range(3000)],
        [str(number) + "x" * length for length in LENGTHS for number in range(300)],
        ["\ud800" + str(number) for number in range(3000)],
        ["X\x01\0\0\0a" + str(number) + "q\x01" for number in range(3000)],
    ],
    ids=["many", "repeated", "multibyte", "long", "surrogates", "like-opcodes"],
)
def test_long_lists_of_text_are_read_as_python_reads_them(strings: list[str], protocol: int) -> None:
    # The second list refers to the strings of the first by their memo entries.
    value = {"first": strings, "second": list(reversed(strings)), "third": dict.fromkeys(strings, 1)}
    assert read(pickle.dumps(value, protocol)) == value


@pytest.mark.parametrize(
    "separator", [b"", b"q\x05", b"r\xff\xff\x07\0", b"r\0\0\x08\0", b"r\xff\xff\xff\x7f"], ids=bytes.hex
)
def test_runs_of_strings_with_odd_memo_entries_are_read(separator: bytes) -> None:
    strings = [f"s{number}" for number in range(3000)]
    assert read(program(b"(", *(text(string) + separator for string in strings), b"t")) == tuple(strings)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_containers_of_the_standard_library_are_read_as_plain_ones(protocol: int) -> None:
    pairs = {"a": 1, "b": 2}
    assert read(pickle.dumps(collections.OrderedDict(pairs), protocol)) == pairs
    assert read(pickle.dumps(collections.Counter("abb"), protocol)) == pairs
    assert sorted(read(pickle.dumps({"x", "y"}, protocol))) == ["x", "y"]


def test_an_ordered_dictionary_of_python_2_is_read() -> None:
    pair = b"]" + text("k") + b"aK\x05a"
    assert read(program(ORDERED_DICT, b"]", pair, b"a\x85R")) == {"k": 5}


def test_what_is_to_be_built_is_a_record_of_it() -> None:
    thing = read(program(named(*THING), b"K\x07\x85R}", text("k"), b"K\x08sb"))
    assert isinstance(thing, Instance)
    assert (thing.constructor, thing.arguments, thing.state) == (THING, (7,), {"k": 8})


def test_pickles_that_follow_each_other_are_read_one_by_one() -> None:
    first, second = pickle.dumps([1], 2), pickle.dumps("two", 4)
    assert read_pickle(first + second, allowed=()) == ([1], len(first))
    assert read_pickle(first + second, allowed=(), start=len(first)) == ("two", len(first + second))


# Code. Each payload would create the canary's file if it ran.


def calls(canary: Path) -> dict[str, bytes]:
    """Return operations that run code when Python's own unpickler meets them; each pushes one value."""
    command = f"touch {canary}"
    write = f"open({str(canary)!r}, 'w')"
    opened = text(str(canary)) + text("w") + b"\x86"
    return {
        "os.system": named("os", "system") + text(command) + b"\x85R",
        "posix.system": named("posix", "system") + text(command) + b"\x85R",
        "os.system-from-stack": named_from_stack("os", "system") + text(command) + b"\x85R",
        "subprocess": named("subprocess", "Popen") + text("touch") + text(str(canary)) + b"\x86\x85R",
        "eval": named("builtins", "eval") + text(write) + b"\x85R",
        "exec": named("builtins", "exec") + text(write) + b"\x85R",
        "python-2-eval": named("__builtin__", "eval") + text(write) + b"\x85R",
        "open": named("builtins", "open") + opened + b"R",
        "io.open": named("io", "open") + opened + b"R",
        "newobj": named("io", "FileIO") + opened + b"\x81",
        "newobj-ex": named("io", "FileIO") + opened + b"}\x92",
        "getattr": named("builtins", "getattr") + named("os", "path") + text("os") + b"\x86R",
        "import": named("importlib", "import_module") + text("os") + b"\x85R",
        "dotted": named_from_stack("collections", "OrderedDict.fromkeys.__self__") + b")R",
        "module-of-ours": named_from_stack("torchtext.vocab.vocab", "Vocab.__init__.__globals__") + b")R",
        "partial": named("functools", "partial") + named("os", "system") + text(command) + b"\x86R",
        "torch.load": named("torch", "load") + text(str(canary)) + b"\x85R",
        "runpy": named("runpy", "run_path") + text(str(canary)) + b"\x85R",
        "copyreg": named("copy_reg", "_reconstructor") + named("io", "FileIO") + b"N\x86R",
        "inst": b"(" + text(command) + b"ios\nsystem\n",
        "obj": b"(" + named("os", "system") + text(command) + b"o",
        "setstate": named("code", "InteractiveInterpreter") + b")\x81}" + text("buffer") + b"]sb",
        "setstate-of-a-partial": named("functools", "partial") + b")\x81" + named("os", "system") + b")}N\x87b",
        "extension": b"\x82\x01" + text(command) + b"\x85R",
        "extension-2": b"\x83\x01\x00" + text(command) + b"\x85R",
        "extension-4": b"\x84\x01\x00\x00\x00" + text(command) + b"\x85R",
        "persid": b"Pos.system\n",
        "buffer": b"\x97",
        "read-only-buffer": b"N\x98",
        "class-without-a-call": named("os", "system"),
    }


CALLS = sorted(calls(Path("canary")))


@pytest.mark.parametrize("call", CALLS)
def test_nothing_that_a_file_names_is_run_wherever_it_stands(tmp_path: Path, call: str) -> None:
    canary = tmp_path / "canary"
    payload = calls(canary)[call]
    for place in PLACES.values():
        for container in CONTAINERS.values():
            for reader in (read_vocabulary, read_state_dict):
                with refused(ForbiddenPickle):
                    reader(container(place(payload)))
    with refused(ForbiddenPickle):
        read(program(payload))
    assert not canary.exists()


@pytest.mark.parametrize("call", ["os.system", "eval", "open"])
def test_the_payloads_above_would_run_in_an_unpickler_that_trusts_them(tmp_path: Path, call: str) -> None:
    canary = tmp_path / "canary"
    result = pickle.loads(program(calls(canary)[call]))
    if call != "os.system":
        result.close()
    assert canary.exists()


def test_what_was_asked_for_is_told_to_the_log_and_not_to_the_caller() -> None:
    with refused(ForbiddenPickle) as caught:
        read(program(named("os", "system")))
    assert "system" not in str(caught.value)
    assert "'os' 'system'" in str(caught.value.__cause__)


def test_a_name_that_is_allowed_is_no_longer_allowed_under_another_module() -> None:
    with refused(ForbiddenPickle):
        read(program(named("module2", "Thing")))


# Pickles in protocols 0 and 1, torchtext's classes among them; torch.save and pickle use these only on request.
OLD = {
    "list": pickle.dumps(["a", "b"], 0),
    "dictionary": pickle.dumps({"a": 0}, 0),
    "class": b"ccopy_reg\n_reconstructor\np0\n(ctorchtext.vocab.vocab\nVocab\np1\nc__builtin__\nobject\nNtR.",
    "binary-class": b"ccopy_reg\n_reconstructor\nq\x00(ctorchtext.vocab.vocab\nVocab\nc__builtin__\nobject\nNtR.",
}


@pytest.mark.parametrize("data", OLD.values(), ids=OLD.keys())
def test_the_protocols_of_old_are_refused(data: bytes) -> None:
    with refused(InvalidModelFile):
        read_vocabulary(data)


# Bombs: small files that demand much time or memory.


BOMBS: dict[str, bytes] = {
    "hash-bomb": program(b"}", HASH_BOMB, b"Ns"),
    "hash-bomb-as-a-module": program(HASH_BOMB, text("a"), b"\x93"),
    "hash-bomb-as-a-name": program(text("a"), HASH_BOMB, b"\x93"),
    "hash-bomb-in-a-set": program(b"\x8f(", HASH_BOMB, b"\x90"),
    "hash-bomb-as-a-constructor": program(HASH_BOMB, b")R"),
    "hash-bomb-as-a-storage": program(text("storage"), HASH_BOMB, b"\x86Q"),
    "hash-bomb-in-pairs": program(ORDERED_DICT, b"]", HASH_BOMB, b"N\x86a\x85R"),
    "equal-hashes": program(
        b"}(", *(pickle.dumps(n * ((1 << 61) - 1), 2)[2:-1] + b"N" for n in range(1 << 30, (1 << 30) + 40_000)), b"u"
    ),
    "nested-lists": program(b"]" * 100_000, b"a" * 99_999),
    "nested-tuples": program(b")", b"\x85" * 100_000),
    "nested-dictionaries": program(b"}", (text("vocab") + b"}") * 20_000, b"s" * 20_000),
    "nested-instances": program(b")" + (VOCAB[:-2] + b"q\x01"), b"h\x01N\x85R\x85" * 20_000),
    "nested-constructors": program(ORDERED_DICT + b"q\x00" + b"}" + b"\x85h\x00" * 20_000),
    "marks": program(b"(" * 200_000),
    "many-lists": program(b"](" + b"]" * 2_000_000 + b"e"),
    "many-dictionaries": program(b"](" + b"}" * 2_000_000 + b"e"),
    "memo-far-away": program(text("a"), b"r\xff\xff\xff\xff"),
    "memo-far-away-in-runs": program(b"(", (b"X\0\0\0\0r\xff\xff\x07\0" * 8 + b"N") * 12_000, b"t"),
    "memo-that-is-none": program(b"j\xff\xff\xff\xff"),
    "text-of-2^60": program(b"\x8d" + struct.pack("<Q", 1 << 60) + b"a"),
    "text-of-2^64": program(b"\x8d" + b"\xff" * 8 + b"a"),
    "text-of-2^31": program(b"X\xff\xff\xff\x7fa"),
    "bytes-of-2^31": program(b"B\xff\xff\xff\x7fa"),
    "frame-of-2^64": program(b"\x95" + b"\xff" * 8 + b"N", protocol=4),
    "number-of-255-bytes": program(b"\x8a\xff" + b"\x7f" * 255),
    "number-of-2^31-bytes": program(b"\x8b\xff\xff\xff\x7f"),
    "list-in-itself": program(b"]q\x00h\x00a"),
    "list-in-itself-often": program(b"]q\x00(" + b"h\x00" * 100_000 + b"e"),
    "one-list-appended-often": program(b"]q\x00", (b"]q\x01(" + b"h\x00" * 10 + b"e") * 10_000),
    "dictionary-in-itself": program(b"}q\x00", text("vocab"), b"h\x00s"),
    "instance-in-itself": program(VOCAB, b"q\x00}", text("vocab"), b"h\x00sb"),
    "one-long-list-built-often": program(
        ORDERED_DICT,
        b"q\x00](" + b"".join(b"K\x01K\x02\x86" for _ in range(10_000)) + b"e\x85q\x01",
        b"h\x00h\x01R" * 10_000,
    ),
    "text-as-pairs": program(ORDERED_DICT, text("ab" * 50_000), b"\x85R"),
    "slow-scan": program(b"(", (text("a") * 300 + b"N") * 300, b"t"),
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_small_file_that_wants_much_is_refused_soon(bomb: str) -> None:
    with ends_within(10), refused(InvalidModelFile):
        read_vocabulary(BOMBS[bomb])
    with ends_within(10), refused(InvalidModelFile):
        read_state_dict(in_zip(BOMBS[bomb]))


@pytest.mark.slow
@pytest.mark.timeout(20)
@pytest.mark.parametrize("bomb", ["many-lists", "many-dictionaries", "text-of-2^60", "text-of-2^31", "memo-far-away"])
def test_a_small_file_that_wants_much_gets_little_memory(bomb: str) -> None:
    tracemalloc.start()
    try:
        with refused(InvalidModelFile):
            read_vocabulary(BOMBS[bomb])
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 48 << 20


# Damage.

DAMAGED: dict[str, bytes] = {
    "empty": b"",
    "only-stop": b".",
    "no-stop": b"\x80\x02N",
    "protocol-6": program(b"N", protocol=6),
    "two-values": program(b"NN"),
    "nothing-left": program(b"N0"),
    "pop-of-nothing": program(b"0N"),
    "pop-of-a-mark": program(b"(0N"),
    "tuple-over-a-mark": program(b"(N\x86"),
    "no-mark": program(b"Nt"),
    "odd-items": program(b"}(NNNu"),
    "items-for-a-list": program(b"]", text("k"), b"Ns"),
    "append-to-a-dictionary": program(b"}Na"),
    "state-for-text": program(text("a"), b"Nb"),
    "call-of-text": program(text("a"), b")R"),
    "arguments-no-tuple": program(ORDERED_DICT, b"]R"),
    "three-in-a-pair": program(ORDERED_DICT, b"]NNN\x87a\x85R"),
    "list-as-a-key": program(b"}]Ns"),
    "tuple-as-a-key": program(b"})Ns"),
    "large-number-as-a-key": program(b"}\x8a\x09", b"\x7f" * 9, b"Ns"),
    "global-of-numbers": program(b"K\x01K\x02\x93"),
    "global-cut": program(b"cos"),
    "global-not-utf-8": program(b"c\xff\n\xff\n"),
    "text-not-utf-8": program(b"X\x02\0\0\0\xc0\xaf"),
    "run-not-utf-8": program(b"(", b"X\x02\0\0\0\xc0\xaf" * 2000, b"t"),
    "persistent-id": program(b"NQ"),
    "memo-of-nothing": program(b"q\x00N"),
    "memo-unknown": program(b"h\x07"),
    "unknown-opcode": program(b"\xff"),
    "text-file": b"hello",
    "html": b"<html>",
}


@pytest.mark.parametrize("data", DAMAGED.values(), ids=DAMAGED.keys())
def test_a_damaged_pickle_is_refused(data: bytes) -> None:
    with refused(InvalidModelFile):
        read(data)


WHOLE = pickle.dumps({"list": [f"t{n}" for n in range(400)], "more": [1, 2.5, None, (1, 2)], "long": "x" * 300}, 2)


@pytest.mark.parametrize("protocol", [2, 4])
def test_every_cut_of_a_pickle_is_refused(protocol: int) -> None:
    whole = pickle.dumps(pickle.loads(WHOLE), protocol)
    for end in range(0, len(whole), 7):
        with refused(InvalidModelFile):
            read(whole[:end])


OPCODES = st.sampled_from([bytes([code]) for code in range(256)]) | st.sampled_from(
    [b"h\0", b"q\0", b"K\1", text("a"), ORDERED_DICT, VOCAB, b")R", b"(", b"e", b"u", b"t", b"}", b"]", b"\x8a\x01\x05"]
)


@given(st.lists(OPCODES, max_size=40).map(b"".join) | st.binary(max_size=80))
@settings(max_examples=400, suppress_health_check=[HealthCheck.too_slow])
def test_any_bytes_are_data_or_refused(operations: bytes) -> None:
    try:
        read(b"\x80\x04" + operations + b".")
    except InvalidModelFile:
        return
