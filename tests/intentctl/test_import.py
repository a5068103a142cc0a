from __future__ import annotations

import gzip
import io
import json
import stat
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import Result

from intentctl.output import EXIT_FAILED, EXIT_USAGE
from serving.domain.manifest import MAX_MANIFEST_BYTES
from serving.domain.prediction import Prediction, Query
from tests.conftest import shared
from tests.intentctl.archives import clinc150_rows, intentctl, loaded, small_model

SEED = "seed-model/1/intent_80bf0da.mar"
MANIFEST = b'{"Algorithm": "intent-classification-torch", "classes": {"0": "no", "1": "yes"}, "Extra": [1]}'
MAR_MANIFEST = b'{"model": {"modelName": "weather", "handler": "handler.py"}}'


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """Return an empty folder of models."""
    folder = tmp_path / "models"
    folder.mkdir()
    return folder


def imported(archive: Path, models: Path, *arguments: str) -> Result:
    return intentctl("import", archive, "--model-dir", models, *arguments)


def small_members() -> dict[str, bytes]:
    """Return the members of an archive of a small valid model."""
    with TemporaryDirectory() as folder:
        files = {path.name: path.read_bytes() for path in small_model(Path(folder), "m").iterdir()}
    return files | {"manifest.json": MANIFEST, "handler.py": b"raise SystemExit", "MAR-INF/MANIFEST.json": MAR_MANIFEST}


def zipped(members: Mapping[str, bytes], change: Callable[[zipfile.ZipInfo], None] = lambda _: None) -> bytes:
    """Return an archive as torch-model-archiver makes it, with ``change`` applied to each member."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            member = zipfile.ZipInfo(name)
            member.compress_type = zipfile.ZIP_DEFLATED
            change(member)
            archive.writestr(member, content)
    return buffer.getvalue()


MEMBERS = small_members()


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """Return an archive of a small model, whose file name does not contain the id."""
    path = tmp_path / "archive.mar"
    path.write_bytes(zipped(MEMBERS))
    return path


# Archives that are read.


def test_the_seeds_archive_is_served_as_the_seeds_model_is(models: Path, figure: Callable[[str], None]) -> None:
    result = imported(shared(SEED), models, "--json")
    assert result.exit_code == 0, result.stderr
    told = json.loads(result.stdout)
    assert (told["id"], told["labels"], told["tokenizer"]) == ("intent_80bf0da", 151, "basic_english_characters")

    model = loaded(models, "intent_80bf0da")
    rows = clinc150_rows()
    answers = model.predict([Query("m", document) for document, _ in rows])
    right = sum(
        isinstance(answer, Prediction) and answer.label == label
        for answer, (_, label) in zip(answers, rows, strict=True)
    )
    (timer,) = model.predict([Query("m", "make a 10 minute timer")])
    figure(f"right answers of the imported archive: {right} of {len(rows)}")
    assert isinstance(timer, Prediction)
    assert timer.label == "timer"
    assert right == 2465


def test_the_model_is_published_for_the_predictor_with_sums(models: Path, archive: Path) -> None:
    assert imported(archive, models).exit_code == 0
    manifest = json.loads((models / "weather" / "manifest.json").read_text())

    assert manifest["Algorithm"] == "intent-classification"
    assert manifest["Extra"] == [1]
    assert set(manifest["Files"]) == {"model.pth", "vocab.pth"}
    assert sorted(path.name for path in (models / "weather").iterdir()) == ["manifest.json", "model.pth", "vocab.pth"]


def test_what_was_exported_comes_back_to_the_byte(models: Path, tmp_path: Path) -> None:
    folder = small_model(
        models, "there", ModelVersion="4", Extra={"a": [None]},
        Tokenizer="basic_english+words:2+characters:3-5", Confidence={"temperature": 1.5, "fallback": "no"},
        Baseline={"documents": 3, "labels": {"no": 3}},
    )  # fmt: skip
    export = intentctl("export", "--torchserve", "there", "--model-dir", models, "--model-store", tmp_path)
    assert export.exit_code == 0, export.stderr
    back = tmp_path / "back"
    back.mkdir()
    assert imported(tmp_path / "model-there.mar", back).exit_code == 0

    for name in ("model.pth", "vocab.pth"):
        assert (back / "there" / name).read_bytes() == (folder / name).read_bytes()
    manifest = json.loads((back / "there" / "manifest.json").read_text())
    del manifest["Files"]
    assert manifest == json.loads((folder / "manifest.json").read_text())


@pytest.mark.parametrize(
    ("name", "arguments", "model_id"),
    [
        ("model-from.name.mar", (), "from.name"),
        ("model-from-name.mar", ("--model-id", "chosen"), "chosen"),
        ("anything.mar", (), "weather"),
        ("anything", (), "weather"),
        ("model-.mar", (), "weather"),
    ],
)
def test_the_id_is_the_chosen_one_or_that_of_the_files_name_or_that_in_the_archive(
    models: Path, archive: Path, name: str, arguments: tuple[str, ...], model_id: str
) -> None:
    assert imported(archive.rename(archive.with_name(name)), models, *arguments).exit_code == 0
    assert [path.name for path in models.iterdir()] == [model_id]


@pytest.mark.parametrize(
    ("name", "arguments"), [("archive.mar", ("--model-id", "../x")), ("model-a b.mar", ()), ("model-..mar", ())]
)
def test_what_is_no_id_is_a_wrong_call(models: Path, archive: Path, name: str, arguments: tuple[str, ...]) -> None:
    result = imported(archive.rename(archive.with_name(name)), models, *arguments)
    assert (result.exit_code, result.stdout) == (EXIT_USAGE, "")
    assert "--model-id" in result.stderr
    assert list(models.iterdir()) == []


def test_a_model_that_is_there_is_replaced_only_where_it_is_said(models: Path, archive: Path) -> None:
    assert imported(archive, models).exit_code == 0
    refused = imported(archive, models)
    assert (refused.exit_code, refused.stdout) == (EXIT_FAILED, "")
    assert "a model weather already exists" in refused.stderr
    assert imported(archive, models, "--replace").exit_code == 0


def test_off_a_terminal_the_summary_is_lines_with_tabs(models: Path, archive: Path) -> None:
    told = dict(line.split("\t") for line in imported(archive, models).stdout.splitlines())
    assert told["folder"] == str(models / "weather")
    assert (told["id"], told["labels"], told["tokenizer"]) == ("weather", "2", "basic_english")


# Archives that are refused.


def refused_as(data: bytes, message: str, models: Path, tmp_path: Path) -> None:
    path = tmp_path / "hostile.mar"
    path.write_bytes(data)
    result = imported(path, models, "--model-id", "hostile")
    assert (result.exit_code, result.stdout) == (EXIT_FAILED, ""), result.output
    assert message in result.stderr
    assert list(models.iterdir()) == []


def zipped_twice(name: str) -> bytes:
    """Return an archive with two members of the same name."""
    return zipped({**MEMBERS, "x" * len(name): b"again"}).replace(b"x" * len(name), name.encode())


def linked(member: zipfile.ZipInfo) -> None:
    member.external_attr = (stat.S_IFLNK | 0o777) << 16


def compressed_otherwise(member: zipfile.ZipInfo) -> None:
    member.compress_type = zipfile.ZIP_LZMA


def headers_of(data: bytes | bytearray, name: str) -> Iterator[tuple[int, int]]:
    """Yield the positions of the flags and the size of the member ``name``: before it, and in the list of members."""
    for signature, flags, size, begin in ((b"PK\x03\x04", 6, 22, 30), (b"PK\x01\x02", 8, 24, 46)):
        position = data.find(signature)
        while not data[position + begin :].startswith(name.encode()):
            position = data.find(signature, position + 1)
        yield position + flags, position + size


def flagged(flag: int) -> bytes:
    """Return an archive with one member that has this flag."""
    changed = bytearray(zipped(MEMBERS))
    for flags, _ in headers_of(changed, "vocab.pth"):
        changed[flags] |= flag
    return bytes(changed)


def resized(data: bytes, size: int) -> bytes:
    """Return ``data`` with ``size`` as the declared size of its manifest."""
    changed = bytearray(data)
    for _, place in headers_of(changed, "manifest.json"):
        changed[place : place + 4] = size.to_bytes(4, "little")
    return bytes(changed)


def with_manifest(**keys: Any) -> bytes:
    return zipped({**MEMBERS, "manifest.json": json.dumps(json.loads(MANIFEST) | keys).encode()})


HOSTILE: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "the archive is damaged"),
    "no zip": (b"hello", "the archive seems to be plain text; give an archive of TorchServe"),
    "a model of ONNX": (b"\x08\x08\x12\x07pytorch\x1a\x052.1.0", "the archive seems to be a model of ONNX; give"),
    "a pickle": (b"\x80\x02}q\x00.", "the archive seems to be a pickle; give an archive of TorchServe"),
    "a tar archive without gzip": (b"model.pth".ljust(257, b"\0") + b"ustar", "the archive seems to be a tar archive;"),
    "a web page": (b"<!DOCTYPE html><title>404</title>", "the archive seems to be a web page; give an archive"),
    "text in gzip": (gzip.compress(b"hello"), "the archive seems to be plain text; give an archive"),
    "cut off": (zipped(MEMBERS)[:-30], "the archive is damaged"),
    "two of one name": (zipped_twice("vocab.pth"), "two members with the same name"),
    "leaves upwards": (zipped({**MEMBERS, "a/../../b": b""}), "outside of its folder"),
    "leaves upwards at the end": (zipped({**MEMBERS, "a\n/..": b""}), "outside of its folder"),
    "leaves to the root": (zipped({**MEMBERS, "/etc/passwd": b""}), "outside of its folder"),
    "leaves on windows": (zipped({**MEMBERS, "a\\..\\b": b""}), "outside of its folder"),
    "leaves to a drive": (zipped({**MEMBERS, "C:b": b""}), "outside of its folder"),
    "a null in a name": (zipped({**MEMBERS, "a-b": b""}).replace(b"a-b", b"a\0b"), "outside of its folder"),
    "links": (zipped(MEMBERS, linked), "a link"),
    "encrypted": (flagged(0x01), "encrypted"),
    "a patch": (flagged(0x20), "the archive is damaged"),
    "less than it says": (resized(zipped(MEMBERS), len(MANIFEST) + 1), "the archive is damaged"),
    "an end that is cut off": (zipped(MEMBERS) + b"PK\x05\x06", "the archive is damaged"),
    "a second list": (zipped(MEMBERS)[:-22] + b"PK\x06\x07" + bytes(16) + zipped(MEMBERS)[-22:], "far more members"),
    "another compression": (zipped(MEMBERS, compressed_otherwise), "unsupported compression"),
    "too many members": (zipped({**MEMBERS, **{f"{i:060}": b"" for i in range(3000)}}), "far more members"),
    "no model": (zipped({"handler.py": b""}), "the archive has no manifest.json and no model.pth and no vocab.pth"),
    "no vocabulary": (
        zipped({name: data for name, data in MEMBERS.items() if name != "vocab.pth"}),
        "the archive has no vocab.pth",
    ),
    "a manifest that is too large": (
        zipped({**MEMBERS, "manifest.json": b" " * MAX_MANIFEST_BYTES + MANIFEST}),
        "manifest.json of the archive is larger than",
    ),
    "a bomb": (zipped({**MEMBERS, "vocab.pth": bytes(65 << 20)}), "vocab.pth of the archive is larger than"),
    "no manifest of ours": (zipped({**MEMBERS, "manifest.json": b"{}"}), "manifest.json: Algorithm"),
    "another number of labels": (with_manifest(classes={"0": "a"}), "the numbers must agree"),
    "an unknown tokenizer": (with_manifest(Tokenizer="spacy"), "Tokenizer must be omitted or one of"),
    "wrong sums": (with_manifest(Files={"model.pth": {"size": 1, "sha256": "0" * 64}}), "is not the file"),
    "code in the weights": (
        zipped({**MEMBERS, "model.pth": b"\x80\x02cos\nsystem\nX\x02\x00\x00\x00id\x85R."}),
        "none of it was run",
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_hostile_or_damaged_is_refused_in_plain_words(name: str, models: Path, tmp_path: Path) -> None:
    refused_as(*HOSTILE[name], models, tmp_path)


def test_an_archive_that_is_damaged_anywhere_in_the_model_is_refused(models: Path, tmp_path: Path) -> None:
    data = bytearray(zipped(MEMBERS))
    position = data.index(b"model.pth") + len(b"model.pth") + 20
    data[position] ^= 0xFF
    refused_as(bytes(data), "the archive is damaged", models, tmp_path)


def test_a_member_that_is_larger_than_it_says_is_not_inflated(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The member declares 1,000 bytes, and would take 60 MB.
    data = resized(zipped({**MEMBERS, "manifest.json": bytes(60_000_000)}), 1000)
    with most_inflated(monkeypatch) as inflated:
        refused_as(data, "the archive is damaged", models, tmp_path)
    assert inflated
    assert max(inflated) <= 1 << 16


@contextmanager
def most_inflated(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Yield the list of the sizes of the pieces that zlib inflates, in bytes."""
    sizes: list[int] = []
    real = zlib.decompressobj

    class Watched:
        def __init__(self, *arguments: Any) -> None:
            self._real = real(*arguments)

        def decompress(self, *arguments: Any) -> bytes:
            piece = self._real.decompress(*arguments)
            sizes.append(len(piece))
            return piece

        def __getattr__(self, name: str) -> Any:
            return getattr(self._real, name)

    with monkeypatch.context() as patch:
        patch.setattr(zlib, "decompressobj", Watched)
        yield sizes


def test_an_archive_that_is_larger_than_any_model_is_not_read(models: Path, tmp_path: Path) -> None:
    path = tmp_path / "large.mar"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    result = imported(path, models)
    assert result.exit_code == EXIT_FAILED
    assert "larger than" in result.stderr


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "the archive has no MAR-INF/MANIFEST.json"),
        (b"{", "not valid JSON"),
        (b"[" * 100_000, "not valid JSON"),
        (b"\xff", "not valid JSON"),
        (b'{"model": []}', "names no model"),
        (b'{"model": {"modelName": 1}}', "names no model"),
        (b" " * (2 << 20), "larger than"),
    ],
)
def test_without_a_name_anywhere_the_id_is_asked_for(
    models: Path, tmp_path: Path, content: bytes | None, message: str
) -> None:
    members = {**MEMBERS, "MAR-INF/MANIFEST.json": content}
    path = tmp_path / "archive.mar"
    path.write_bytes(zipped({name: data for name, data in members.items() if data is not None}))
    result = imported(path, models)
    assert (result.exit_code, result.stdout) == (EXIT_FAILED, "")
    assert message in result.stderr
    assert imported(path, models, "--model-id", "chosen").exit_code == 0


def ends_in_plain_words(data: bytes) -> None:
    """Import ``data``, and assert that the result is a model, or an exit code and a sentence."""
    with TemporaryDirectory() as folder:
        models = Path(folder) / "models"
        models.mkdir()
        path = Path(folder) / "archive.mar"
        path.write_bytes(data)
        result = imported(path, models)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        if result.exit_code == 0:
            assert [loaded(models, folder.name).labels for folder in models.iterdir()] == [("no", "yes")]
        else:
            assert result.exit_code in (EXIT_FAILED, EXIT_USAGE)
            assert result.stderr.startswith("error: ")
            assert list(models.iterdir()) == []


@pytest.mark.slow
@given(data=st.binary(max_size=200) | st.binary(max_size=100).map(lambda tail: zipped(MEMBERS)[:-22] + tail))
@settings(max_examples=50)
def test_any_bytes_end_in_plain_words(data: bytes) -> None:
    ends_in_plain_words(data)


WHOLE = zipped(MEMBERS)
DIRECTORY = WHOLE.index(b"PK\x01\x02")
# Most of the damage is in the list of members, which decides the most.
PLACES = st.integers(DIRECTORY, len(WHOLE) - 1) | st.integers(0, len(WHOLE) - 1)


@pytest.mark.slow
@given(damage=st.lists(st.tuples(PLACES, st.binary(min_size=1, max_size=8)), min_size=1, max_size=4))
@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow])
def test_any_damage_to_an_archive_ends_in_plain_words(damage: list[tuple[int, bytes]]) -> None:
    data = bytearray(WHOLE)
    for position, piece in damage:
        data[position : position + len(piece)] = piece
    ends_in_plain_words(bytes(data))


@pytest.mark.slow
@given(
    name=st.sampled_from([*MEMBERS]),
    content=st.binary(max_size=50)
    | st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["model", "modelName", "Algorithm", "classes", "Files", "0"]), inner)
        ),
    ).map(lambda value: json.dumps(value).encode()),
)
@settings(max_examples=80)
def test_any_content_of_a_member_ends_in_plain_words(name: str, content: bytes) -> None:
    ends_in_plain_words(zipped({**MEMBERS, name: content}))
