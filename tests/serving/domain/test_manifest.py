from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.domain.errors import InvalidManifest
from serving.domain.manifest import FileSum, Manifest
from tests.conftest import shared
from tests.serving.refusals import refused

LEAST: dict[str, Any] = {"Algorithm": "intent-classification"}


def parsed(**keys: Any) -> Manifest:
    return Manifest.parse(json.dumps(LEAST | keys).encode())


# Keys that are read.


def test_an_algorithm_alone_makes_a_manifest() -> None:
    manifest = parsed()
    assert manifest.algorithm == "intent-classification"
    assert manifest.labels == ()
    assert (manifest.model_name, manifest.model_version, manifest.tokenizer, manifest.fc_size) == ("", "", None, None)


def test_the_manifest_of_the_book_is_read() -> None:
    manifest = Manifest.parse(shared("seed-model/1/manifest.json").read_bytes())
    assert (manifest.algorithm, manifest.model_name, manifest.model_version) == (
        "intent-classification",
        "intent",
        "1.0",
    )
    assert len(manifest.labels) == 151
    assert manifest.labels[:2] == ("cancel", "ingredients_list")


def test_labels_stand_in_the_order_of_their_indices_and_not_of_the_file() -> None:
    classes = {str(index): f"label {index}" for index in reversed(range(12))}
    assert parsed(classes=classes).labels == tuple(f"label {index}" for index in range(12))


@pytest.mark.parametrize(("written", "read"), [("1.0", "1.0"), (1.0, "1.0"), (2, "2"), (0, "0"), ("", "")])
def test_a_version_written_as_a_number_is_read_as_its_text(written: object, read: str) -> None:
    assert parsed(ModelVersion=written).model_version == read


@pytest.mark.parametrize("size", [1, 64, (1 << 31) - 1])
def test_a_width_of_the_hidden_layer_is_read(size: int) -> None:
    assert parsed(fc_size=size).fc_size == size


def test_labels_of_every_script_are_read_and_written_back() -> None:
    classes = {"0": "größe", "1": "日本", "2": "😀", "3": "a\0b", "4": ""}
    manifest = parsed(classes=classes)
    assert manifest.labels == tuple(classes.values())
    assert "日本" in manifest.to_json()


def test_sums_of_files_are_read_and_written_back() -> None:
    files = {"model.pth": FileSum(size=7, sha256="0a" * 32), "vocab.pth": FileSum(size=0, sha256="f" * 64)}
    with_files = parsed(unknown=1).with_files(files)
    assert with_files.files == files
    assert Manifest.parse(with_files.to_json().encode()) == with_files
    assert parsed(unknown=1).files == {}


# Keys that are kept.

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
KNOWN = {"Algorithm", "classes", "ModelName", "ModelVersion", "Tokenizer", "fc_size", "Files"}
ODD = ["labels", "parse", "model_extra", "model_config", "__class__", "classes2", "Framework", "algorithm2", ""]
UNKNOWN_KEYS = (st.text() | st.sampled_from(ODD)).filter(
    lambda key: key not in KNOWN and key not in Manifest.model_fields
)


@given(st.dictionaries(UNKNOWN_KEYS, JSON, max_size=6), st.lists(st.text(), max_size=4))
def test_unknown_keys_and_labels_survive_being_written_and_read_again(extra: dict[str, Any], labels: list[str]) -> None:
    document = LEAST | {"classes": {str(index): label for index, label in enumerate(labels)}} | extra
    manifest = Manifest.parse(json.dumps(document).encode())
    assert json.loads(manifest.to_json()) == document
    assert Manifest.parse(manifest.to_json().encode()) == manifest


# Manifests that are refused.


def text(document: str) -> bytes:
    return document.encode()


def with_value(value: str) -> bytes:
    return text(f'{{"Algorithm": "a", "x": {value}}}')


UNREADABLE = {
    "empty": b"",
    "cut": text('{"Algorithm": "a"'),
    "trailing": text('{"Algorithm": "a"}}'),
    "comment": text('{"Algorithm": "a"} // mine'),
    "single-quotes": text("{'Algorithm': 'a'}"),
    "utf-16": '{"Algorithm": "a"}'.encode("utf-16"),
    "utf-32": '{"Algorithm": "a"}'.encode("utf-32-le"),
    "latin-1": '{"Algorithm": "é"}'.encode("latin-1"),
    "overlong-utf-8": b'{"Algorithm": "\xc0\xaf"}',
    "encoded-surrogate": b'{"Algorithm": "\xed\xa0\x80"}',
    "raw-control": b'{"Algorithm": "a\x01"}',
    "nan": with_value("NaN"),
    "infinity": with_value("-Infinity"),
    "1e400": with_value("1e400"),
    "digits": with_value("1" * 100_000),
    "duplicate-key": text('{"Algorithm": "a", "Algorithm": "b"}'),
    "duplicate-class": text('{"Algorithm": "a", "classes": {"0": "a", "0": "b"}}'),
    "duplicate-inside": with_value('[{"k": 1, "k": 1}]'),
    "duplicate-by-escape": text('{"Algorithm": "a", "\\u0041lgorithm": "b"}'),
    "surrogate-label": text('{"Algorithm": "a", "classes": {"0": "\\ud800"}}'),
    "surrogate-name": text('{"Algorithm": "a", "ModelName": "\\udc80"}'),
    "surrogate-unknown": with_value('["\\ud800"]'),
    "100000-lists": with_value("[" * 100_000 + "]" * 100_000),
    "100000-objects": with_value('{"a":' * 100_000 + "1" + "}" * 100_000),
    "100000-open": text("[" * 100_000),
}


@pytest.mark.parametrize("data", UNREADABLE.values(), ids=UNREADABLE.keys())
def test_what_is_no_plain_json_is_refused(data: bytes) -> None:
    with refused(InvalidManifest):
        Manifest.parse(data)


@pytest.mark.parametrize("document", ["[]", '[{"Algorithm": "a"}]', '"Algorithm"', "1", "null", "true"])
def test_json_that_is_no_object_is_refused(document: str) -> None:
    with refused(InvalidManifest, match="one JSON object"):
        Manifest.parse(text(document))


SUM: dict[str, object] = {"size": 1, "sha256": "a" * 64}

WRONG: dict[str, tuple[str, dict[str, Any]]] = {
    "gap": ("classes", {"classes": {"0": "a", "2": "c"}}),
    "not-from-0": ("classes", {"classes": {"1": "a"}}),
    "two-zeros": ("classes", {"classes": {"00": "a"}}),
    "zero-twice": ("classes", {"classes": {"0": "a", "00": "b"}}),
    "sign": ("classes", {"classes": {"+0": "a"}}),
    "space": ("classes", {"classes": {" 0": "a"}}),
    "arabic-digit": ("classes", {"classes": {"٠": "a"}}),
    "word": ("classes", {"classes": {"0": "a", "one": "b"}}),
    "label-number": ("classes", {"classes": {"0": 1}}),
    "label-null": ("classes", {"classes": {"0": None}}),
    "label-list": ("classes", {"classes": {"0": ["a"]}}),
    "classes-list": ("classes", {"classes": ["a", "b"]}),
    "classes-null": ("classes", {"classes": None}),
    "classes-text": ("classes", {"classes": "a"}),
    "algorithm-empty": ("Algorithm", {"Algorithm": ""}),
    "algorithm-number": ("Algorithm", {"Algorithm": 7}),
    "algorithm-null": ("Algorithm", {"Algorithm": None}),
    "algorithm-long": ("Algorithm", {"Algorithm": "a" * 257}),
    "name-list": ("ModelName", {"ModelName": [7]}),
    "version-true": ("ModelVersion", {"ModelVersion": True}),
    "version-list": ("ModelVersion", {"ModelVersion": [1]}),
    "version-long": ("ModelVersion", {"ModelVersion": int("9" * 300)}),
    "tokenizer-empty": ("Tokenizer", {"Tokenizer": ""}),
    "tokenizer-list": ("Tokenizer", {"Tokenizer": ["basic_english"]}),
    "files-list": ("Files", {"Files": []}),
    "files-negative": ("Files", {"Files": {"model.pth": SUM | {"size": -1}}}),
    "files-no-sum": ("Files", {"Files": {"model.pth": {"size": 1}}}),
    "files-short-sum": ("Files", {"Files": {"model.pth": SUM | {"sha256": "a" * 63}}}),
    "files-capital-sum": ("Files", {"Files": {"model.pth": SUM | {"sha256": "A" * 64}}}),
    "files-sum-with-newline": ("Files", {"Files": {"model.pth": SUM | {"sha256": "a" * 64 + "\n"}}}),
    "files-unknown-sum": ("Files", {"Files": {"model.pth": SUM | {"md5": "a"}}}),
    "fc-0": ("fc_size", {"fc_size": 0}),
    "fc-negative": ("fc_size", {"fc_size": -1}),
    "fc-2^31": ("fc_size", {"fc_size": 1 << 31}),
    "fc-2^63": ("fc_size", {"fc_size": 1 << 63}),
    "fc-text": ("fc_size", {"fc_size": "64"}),
    "fc-float": ("fc_size", {"fc_size": 64.5}),
    "fc-true": ("fc_size", {"fc_size": True}),
}


@pytest.mark.parametrize(("key", "keys"), WRONG.values(), ids=WRONG.keys())
def test_a_key_of_the_wrong_kind_is_refused_by_its_name(key: str, keys: dict[str, Any]) -> None:
    with refused(InvalidManifest, match=f"^manifest.json: {key}: "):
        parsed(**keys)


def test_a_missing_algorithm_is_named() -> None:
    with refused(InvalidManifest, match="Algorithm: Field required"):
        Manifest.parse(b"{}")


WANTED = r'an object from index to label, such as {"0": "greeting", "1": "farewell"}'
SHAPES = {
    "list": (["a", "b"], f"classes: is a list, and must be {WANTED}"),
    "null": (None, f"classes: is null, and must be {WANTED}"),
    "text": ("a", f"classes: is text, and must be {WANTED}"),
    "turned": ({"a": 0, "b": 1}, f"classes: is an object from label to index; turn it around, into {WANTED}"),
    "turned-text": ({"a": "0", "b": "1"}, f"classes: is an object from label to index; turn it around, into {WANTED}"),
    "number": ({"0": 1}, f"classes: has a label that is a number, and must be {WANTED}"),
    "null-label": ({"0": "a", "1": None}, f"classes: has a label that is null, and must be {WANTED}"),
    "object-label": ({"0": {"name": "a"}}, f"classes: has a label that is an object, and must be {WANTED}"),
}


@pytest.mark.parametrize(("classes", "message"), SHAPES.values(), ids=SHAPES.keys())
def test_classes_of_another_shape_are_refused_with_the_shape_and_an_example(classes: object, message: str) -> None:
    with refused(InvalidManifest, match=f"^{re.escape(f'manifest.json: {message}')}$"):
        parsed(classes=classes)


def test_other_keys_of_another_shape_are_refused_with_the_shape() -> None:
    with refused(InvalidManifest, match="Algorithm: is or has a number where text is expected"):
        parsed(Algorithm=1)
    with refused(InvalidManifest, match="Files: is or has a list where an object is expected"):
        parsed(Files=[])
    with refused(InvalidManifest, match="Confidence: is or has text where an object is expected"):
        parsed(Confidence="high")


def test_a_gap_in_the_classes_is_named_by_its_index() -> None:
    with refused(InvalidManifest, match="none for index 7"):
        parsed(classes={str(index): "label" for index in range(20) if index != 7})


def test_several_faults_are_told_at_once() -> None:
    with refused(InvalidManifest) as caught:
        parsed(Algorithm=1, classes={"0": 1, "1": None, "2": []}, ModelName=[2], fc_size=0)
    for key in ("Algorithm", "classes", "ModelName", "fc_size"):
        assert str(caught.value).count(f"{key}: ") == 1


@pytest.mark.parametrize("key", ["Algorithm", "classes", "ModelName", "ModelVersion", "Tokenizer", "fc_size"])
@pytest.mark.parametrize("value", ["x" * 100_000, ["x" * 100_000], {"x" * 100_000: 1}, [0] * 10_000], ids=type)
def test_a_message_never_repeats_what_the_manifest_holds(key: str, value: object) -> None:
    with refused(InvalidManifest) as caught:
        parsed(**{key: value})
    assert "xxx" not in str(caught.value)


@given(st.binary(max_size=60) | JSON.map(lambda value: json.dumps(value).encode()))
def test_whatever_the_file_holds_it_is_a_manifest_or_refused_as_one(data: bytes) -> None:
    try:
        Manifest.parse(data)
    except InvalidManifest:
        return


@pytest.mark.parametrize(
    ("example", "label"), [({"document": "hello"}, None), ({"document": "", "label": "greeting"}, "greeting")]
)
def test_an_example_is_read_and_written_back(example: dict[str, str], label: str | None) -> None:
    manifest = parsed(Example=example)
    assert manifest.example is not None
    assert (manifest.example.document, manifest.example.label) == (example["document"], label)
    assert json.loads(manifest.to_json())["Example"] == example


@pytest.mark.parametrize("example", ["hello", {}, {"document": 1}, {"document": "hello", "answer": "greeting"}])
def test_an_example_that_is_none_is_refused(example: object) -> None:
    with pytest.raises(InvalidManifest, match="Example"):
        parsed(Example=example)
