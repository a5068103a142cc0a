"""Reads labelled texts from CSV files and from the JSON of CLINC150. Every error names its file and place."""

from __future__ import annotations

import codecs
import csv
import hashlib
import io
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, NamedTuple

from training.data import OUT_OF_SCOPE, DataSet, Example, Source
from training.errors import BadData

_TEXT_COLUMN: Final = "text"
_LABEL_COLUMNS: Final = ("label", "category")
_DELIMITERS: Final = (",", ";", "\t")
# First line by which spreadsheet programs say what separates the columns.
_SEPARATOR_LINE: Final = re.compile(r'"?sep=(.)"?(?:\r\n|\r|\n)', re.IGNORECASE)
_LINE_BREAK: Final = re.compile(r"\r\n|\r|\n")
_NUL: Final = "\0"


def read_data(path: Path) -> DataSet:
    """Return the data in ``path``: all rows of a CSV file as the training split, or the splits of CLINC150's JSON.

    Raises:
        BadData: the file cannot be read, or a row is malformed.
    """
    if path.suffix == ".json":
        return _read_clinc150(path)
    source, examples = _read_csv(path)
    return DataSet(examples, (), (), (source,))


def with_test_file(data: DataSet, path: Path) -> DataSet:
    """Return ``data`` with the rows of a CSV file as its test split.

    Raises:
        BadData: the file cannot be read, or a row is malformed.
    """
    source, test = _read_csv(path)
    return replace(data, test=test, sources=(*data.sources, source))


def read_domain(path: Path, name: str) -> frozenset[str]:
    """Return the labels of a domain, from a JSON file that maps names of domains to lists of labels.

    Raises:
        BadData: the file cannot be read, or lacks the domain.
    """
    domains = _json_object(path, _read(path))
    match domains.get(name):
        case list() as labels if all(isinstance(label, str) for label in labels):
            return frozenset(labels)
    raise BadData(f"{path.name} has no domain {name!r}; it has {', '.join(sorted(domains)) or 'none'}")


def _read_csv(path: Path) -> tuple[Source, tuple[Example, ...]]:
    data = _read(path)
    examples = tuple(_csv_examples(path, _decoded(path, data)))
    if not examples:
        raise BadData(f"{path.name} has no rows; write the columns text,label and one row per text")
    return _source(path, data), examples


def _csv_examples(path: Path, text: str) -> Iterator[Example]:
    separator_line = _SEPARATOR_LINE.match(text)
    lines_before, delimiters = (0, _DELIMITERS) if separator_line is None else (1, (separator_line[1],))
    lines = io.StringIO(text if separator_line is None else text[separator_line.end() :], newline="")
    first = 1 + lines_before
    columns, reader = _header(path, lines, delimiters, first)
    try:
        for row in reader:
            if not row:
                continue
            place = f"{path.name}, line {reader.line_num + lines_before}"
            if len(row) != columns.number:
                raise BadData(
                    f"{place}: {len(row)} columns, but the header has {columns.number}; "
                    f"put quotes around a text that has {_name_of(columns.delimiter)}s"
                )
            yield _example(place, row[columns.text], row[columns.label])
    except csv.Error as error:
        line = reader.line_num + lines_before
        raise BadData(f"{path.name}, line {line}: not valid CSV ({error}); check the quotes") from error


class _Columns(NamedTuple):
    """Columns of a table, as its header names them."""

    delimiter: str
    number: int
    text: int
    """Index of the column of texts."""
    label: int
    """Index of the column of labels."""


def _header(path: Path, lines: io.StringIO, delimiters: Sequence[str], first: int) -> tuple[_Columns, Any]:
    """Return the columns by the first of the delimiters that fits, and a reader of the rows below the header."""
    for delimiter in delimiters:
        lines.seek(0)
        reader = csv.reader(lines, strict=True, delimiter=delimiter, skipinitialspace=True)
        try:
            names = [name.strip().casefold() for name in next(reader, [])]
        except csv.Error:
            # Quotes around a name make no sense with another delimiter.
            continue
        texts = [index for index, name in enumerate(names) if name == _TEXT_COLUMN]
        labels = [index for index, name in enumerate(names) if name in _LABEL_COLUMNS]
        if len(texts) == len(labels) == 1:
            return _Columns(delimiter, len(names), texts[0], labels[0]), reader
    lines.seek(0)
    raise BadData(
        f"{path.name}, line {first}: the header must name one column text and one column label (or category), "
        f"separated by a {' or a '.join(map(_name_of, delimiters))}; it is {lines.readline().rstrip()!r}"
    )


def _name_of(delimiter: str) -> str:
    return {",": "comma", ";": "semicolon", "\t": "tab"}.get(delimiter, f"character {delimiter!r}")


def _read_clinc150(path: Path) -> DataSet:
    data = _read(path)
    document = _json_object(path, data)
    train, validation, test = (
        tuple(_json_examples(path, document, (split, f"{OUT_OF_SCOPE}_{split}"))) for split in ("train", "val", "test")
    )
    if not train:
        raise BadData(f"{path.name} has no rows under 'train'; it must map train, val and test to [text, label] pairs")
    return DataSet(train, validation, test, (_source(path, data),))


def _json_examples(path: Path, document: dict[str, Any], keys: Iterable[str]) -> Iterator[Example]:
    for key in keys:
        rows = document.get(key, [])
        if not isinstance(rows, list):
            raise BadData(f"{path.name}: {key!r} must be a list of [text, label] pairs")
        for number, row in enumerate(rows, start=1):
            match row:
                case [str() as text, str() as label]:
                    yield _example(f"{path.name}, row {number} of {key!r}", text, label)
                case _:
                    raise BadData(f"{path.name}, row {number} of {key!r}: it must be a [text, label] pair of strings")


def _example(place: str, text: str, label: str) -> Example:
    if _NUL in text or _NUL in label:
        raise BadData(f"{place}: the text or the label has a NUL character; remove it")
    if not text.strip() or not label.strip():
        raise BadData(f"{place}: the {'label' if text.strip() else 'text'} is empty; fill it in or delete the row")
    try:
        f"{text}{label}".encode()
    except UnicodeEncodeError as error:
        raise BadData(
            f"{place}: the text has half of a surrogate pair, which is not a character; write the text again"
        ) from error
    return Example(text, label.strip())


def _json_object(path: Path, data: bytes) -> dict[str, Any]:
    try:
        document = json.loads(_decoded(path, data))
    except json.JSONDecodeError as error:
        raise BadData(f"{path.name}, line {error.lineno}: not valid JSON ({error.msg})") from error
    except RecursionError as error:
        raise BadData(f"{path.name} is nested too deeply") from error
    if not isinstance(document, dict):
        raise BadData(f"{path.name} must hold one JSON object")
    return document


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadData(f"{path.name} cannot be read: {error.strerror}") from error


def _decoded(path: Path, data: bytes) -> str:
    # Accept the byte order marks that spreadsheet programs write, and texts without one.
    is_utf_16 = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        text = data.decode("utf-16" if is_utf_16 else "utf-8-sig")
    except UnicodeDecodeError as error:
        if is_utf_16:
            raise BadData(f"{path.name}: damaged UTF-16; save the file again, as UTF-8") from error
        line = _line_after(data[: error.start].decode("utf-8-sig"))
        raise BadData(f'{path.name}, line {line}: not UTF-8; save the file as "CSV UTF-8", or as UTF-8 text') from error
    if _NUL in text:
        line = _line_after(text[: text.index(_NUL)])
        raise BadData(
            f"{path.name}, line {line}: a NUL character, which no text has; remove it, or save the file as UTF-8 if it "
            "is UTF-16"
        )
    return text


def _line_after(text: str) -> int:
    """Return the number of the line that follows ``text``, or that ``text`` ends in."""
    return len(_LINE_BREAK.findall(text)) + 1


def _source(path: Path, data: bytes) -> Source:
    return Source(path.name, hashlib.sha256(data).hexdigest())
