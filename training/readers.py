"""Reads labelled texts from CSV files and from the JSON of CLINC150. Every error names its file and place."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from training.data import OUT_OF_SCOPE, DataSet, Example, Source
from training.errors import BadData

_TEXT_COLUMN: Final = "text"
_LABEL_COLUMNS: Final = ("label", "category")


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
    reader = csv.reader(io.StringIO(_decoded(path, data), newline=""), strict=True)
    try:
        examples = tuple(_csv_examples(path, reader))
    except csv.Error as error:
        raise BadData(f"{path.name}, line {reader.line_num}: not valid CSV ({error}); check the quotes") from error
    if not examples:
        raise BadData(f"{path.name} has no rows; write the columns text,label and one row per text")
    return _source(path, data), examples


def _csv_examples(path: Path, reader: Any) -> Iterator[Example]:
    header: list[str] = next(reader, [])
    text_column, label_column = _columns(path, header)
    for row in reader:
        if not row:
            continue
        if len(row) != len(header):
            raise BadData(
                f"{path.name}, line {reader.line_num}: {len(row)} columns, but the header has {len(header)}; "
                "put quotes around a text that has commas"
            )
        yield _example(f"{path.name}, line {reader.line_num}", row[text_column], row[label_column])


def _columns(path: Path, header: Sequence[str]) -> tuple[int, int]:
    """Return the indices of the text column and the label column."""
    texts = [index for index, name in enumerate(header) if name == _TEXT_COLUMN]
    labels = [index for index, name in enumerate(header) if name in _LABEL_COLUMNS]
    if len(texts) != 1 or len(labels) != 1:
        raise BadData(
            f"{path.name}, line 1: the header must name one column text and one column label (or category); "
            f"it is {','.join(header)!r}"
        )
    return texts[0], labels[0]


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
    try:
        # Accept the byte order mark that spreadsheet programs write, and texts without it.
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise BadData(f"{path.name}, line {line}: not UTF-8; save the file in that encoding") from error


def _source(path: Path, data: bytes) -> Source:
    return Source(path.name, hashlib.sha256(data).hexdigest())
