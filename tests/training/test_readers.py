from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import shared
from training.data import Example
from training.errors import BadData
from training.readers import read_data, read_domain, with_test_file

Write = Callable[[str | bytes], Path]


@pytest.fixture
def write_csv(tmp_path: Path) -> Write:
    def write(content: str | bytes) -> Path:
        path = tmp_path / "texts.csv"
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write


@pytest.fixture
def write_json(tmp_path: Path) -> Callable[[object], Path]:
    def write(content: object) -> Path:
        path = tmp_path / "texts.json"
        path.write_text(json.dumps(content))
        return path

    return write


@pytest.mark.parametrize("column", ["label", "category"])
def test_every_row_of_a_csv_file_is_a_training_row(write_csv: Write, column: str) -> None:
    data = read_data(write_csv(f'text,{column}\nhello,greet\n\n"bye, bye",leave\n'))
    assert data.train == (Example("hello", "greet"), Example("bye, bye", "leave"))
    assert data.validation == data.test == ()


def test_columns_may_stand_in_any_order_beside_others(write_csv: Write) -> None:
    assert read_data(write_csv("id,label,text\n1,greet,hello\n")).train == (Example("hello", "greet"),)


def test_the_mark_of_spreadsheet_programs_is_no_part_of_the_header(write_csv: Write) -> None:
    assert read_data(write_csv(b"\xef\xbb\xbftext,label\r\nhello,greet\r\n")).train == (Example("hello", "greet"),)


def test_the_source_tells_the_name_and_the_digest_of_the_file(write_csv: Write) -> None:
    path = write_csv("text,label\nhello,greet\n")
    (source,) = read_data(path).sources
    assert (source.file, source.sha256) == ("texts.csv", hashlib.sha256(path.read_bytes()).hexdigest())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", r"line 1: the header must name one column text and one column label"),
        ("text,intent\nhello,greet\n", r"line 1: the header .* it is 'text,intent'"),
        ("text,label,category\nhello,greet,greet\n", r"line 1: the header"),
        ("text,text,label\nhello,hello,greet\n", r"line 1: the header"),
        ("text,label\n", r"texts\.csv has no rows"),
        ("text,label\nhello,greet\nhi, there,greet\n", r"line 3: 3 columns, but the header has 2; put quotes"),
        ("text,label\nhello\n", r"line 2: 1 columns"),
        ("text,label\n  ,greet\n", r"line 2: the text is empty"),
        ("text,label\nhello, \n", r"line 2: the label is empty"),
        ('text,label\n"hello,greet\n', r"line 2: not valid CSV .*check the quotes"),
        (b"text,label\nhello,greet\nna\xefve,greet\n", r"line 3: not UTF-8; save the file as .CSV UTF-8."),
        (b"text,label\rhello,greet\rna\xefve,greet\r", r"line 3: not UTF-8"),
        ("text,label\r\nhello,greet\r\nlost\0card,card\r\n", r"line 3: a NUL character, which no text has; remove it"),
        ("text,label\nhello,greet\n".encode("utf-16-le"), r"line 1: a NUL character, .*if it is UTF-16"),
        ("text,label\n".encode("utf-16")[:-1], r"damaged UTF-16; save the file again"),
        ("sep=,\ntext;label\nhello;greet\n", r"line 2: the header .* separated by a comma; it is 'text;label'"),
    ],
)
def test_a_bad_csv_file_is_told_by_its_line(write_csv: Write, content: str | bytes, message: str) -> None:
    with pytest.raises(BadData, match=message):
        read_data(write_csv(content))


TABLE = "text,label\r\nwhere is my card,card\r\ncafé crème,food\r\n"
ROWS = (Example("where is my card", "card"), Example("café crème", "food"))
SAVED = {
    "with semicolons": TABLE.replace(",", ";").encode("utf-8-sig"),
    "with tabs": TABLE.replace(",", "\t").encode(),
    "with quotes and semicolons": TABLE.replace(",", '";"').replace("\r\n", '"\r\n"')[:-1].join(('"', "")).encode(),
    "with a line sep=,": f"sep=,\r\n{TABLE}".encode("utf-8-sig"),
    "with a line sep=;": ("sep=;\n" + TABLE.replace(",", ";")).encode(),
    "with a line sep=|": ("sep=|\r" + TABLE.replace(",", "|")).encode(),
    "with carriage returns only": TABLE.replace("\r\n", "\r").encode(),
    "as Unicode text of Excel": TABLE.replace(",", "\t").encode("utf-16"),
    "as UTF-16, the other way round": "\ufeff".encode("utf-16-be") + TABLE.encode("utf-16-be"),
    "with spaces and capitals in the header": TABLE.replace("text,label", " Text, Label ").encode(),
    "with spaces after the commas": TABLE.replace(",", ', "').replace("\r\n", '"\r\n').encode(),
}


@pytest.mark.parametrize("saved", SAVED.values(), ids=SAVED.keys())
def test_a_table_is_read_however_a_spreadsheet_program_saved_it(write_csv: Write, saved: bytes) -> None:
    assert read_data(write_csv(saved)).train == ROWS


def test_texts_may_contain_the_other_delimiters(write_csv: Write) -> None:
    data = read_data(write_csv("text;label\nyes, please;greet\nno\tthanks;leave\n"))
    assert data.train == (Example("yes, please", "greet"), Example("no\tthanks", "leave"))


def test_lines_are_counted_from_a_line_sep(write_csv: Write) -> None:
    with pytest.raises(BadData, match=r"line 3: 3 columns, but the header has 2; put quotes around .* semicolons"):
        read_data(write_csv("sep=;\ntext;label\na;b;c\n"))


def test_clinc150_in_utf_16_is_read_as_well(tmp_path: Path) -> None:
    path = tmp_path / "texts.json"
    path.write_bytes(json.dumps({"train": [["hello", "greet"]]}).encode("utf-16"))
    assert read_data(path).train == (Example("hello", "greet"),)


def test_a_nul_character_that_json_escapes_is_refused(write_json: Callable[[object], Path]) -> None:
    with pytest.raises(BadData, match=r"row 1 of 'train': the text or the label has a NUL character"):
        read_data(write_json({"train": [["hel\0lo", "greet"]]}))


def test_a_file_that_is_not_there_is_told_without_its_folder(tmp_path: Path) -> None:
    with pytest.raises(BadData, match=r"^none\.csv cannot be read: No such file"):
        read_data(tmp_path / "none.csv")


def test_the_rows_of_a_test_file_are_the_test_split(write_csv: Write, tmp_path: Path) -> None:
    data = read_data(write_csv("text,label\nhello,greet\n"))
    held_out = tmp_path / "held_out.csv"
    held_out.write_text("text,label\nhi,greet\n")
    tested = with_test_file(data, held_out)
    assert (tested.train, tested.test) == (data.train, (Example("hi", "greet"),))
    assert [source.file for source in tested.sources] == ["texts.csv", "held_out.csv"]


def test_out_of_scope_rows_of_clinc150_join_their_splits(write_json: Callable[[object], Path]) -> None:
    splits = ("train", "val", "test", "oos_train", "oos_val", "oos_test")
    data = read_data(write_json({split: [[split, "oos" if "oos" in split else "a"]] for split in splits}))
    assert data.train == (Example("train", "a"), Example("oos_train", "oos"))
    assert data.validation == (Example("val", "a"), Example("oos_val", "oos"))
    assert data.test == (Example("test", "a"), Example("oos_test", "oos"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "must hold one JSON object"),
        ({"val": []}, "has no rows under 'train'"),
        ({"train": "hello"}, "'train' must be a list"),
        ({"train": [["hello", "greet"], ["hello"]]}, r"row 2 of 'train': it must be a \[text, label\] pair"),
        ({"train": [["hello", 1]]}, "row 1 of 'train'"),
        ({"train": [["", "greet"]]}, "row 1 of 'train': the text is empty"),
        ({"train": [["\ud800", "greet"]]}, "row 1 of 'train': the text has half of a surrogate pair"),
    ],
)
def test_bad_json_is_told_by_its_row(write_json: Callable[[object], Path], content: object, message: str) -> None:
    with pytest.raises(BadData, match=message):
        read_data(write_json(content))


@pytest.mark.parametrize(
    ("content", "message"), [("{\n[", "line 2: not valid JSON"), ("[" * 200_000, "is nested too deeply")]
)
def test_what_is_no_json_is_told(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "texts.json"
    path.write_text(content)
    with pytest.raises(BadData, match=message):
        read_data(path)


def test_a_domain_names_its_labels(write_json: Callable[[object], Path]) -> None:
    path = write_json({"banking": ["balance", "transfer"], "travel": ["book_flight"]})
    assert read_domain(path, "banking") == {"balance", "transfer"}
    with pytest.raises(BadData, match="no domain 'bank'; it has banking, travel"):
        read_domain(path, "bank")


def test_clinc150_has_the_splits_that_its_authors_tell() -> None:
    data = read_data(shared("datasets/clinc150/data_full.json"))
    assert (len(data.train), len(data.validation), len(data.test)) == (15_100, 3_100, 5_500)
    assert len(data.labels) == 151
