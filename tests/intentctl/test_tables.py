"""Tables on a terminal of 80 columns: what readers copy is neither cut nor broken."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import pytest

from serving.domain.model_id import ModelId
from serving.domain.releases.changes import released, with_label
from serving.volume.release_writing import change_release
from tests.access import identity_of, write_access
from tests.evaluation.builders import word_model
from tests.intentctl.archives import intentctl
from tests.intentctl.terminal import printed_on_a_terminal

LONG_ID: Final = "a-tenant-with-a-long-name.and-a-domain-of-its-own.and-more-than-eighty-characters-in-all"
VERSION: Final = "2026-11-30.1-of-the-nightly-build-of-main"
LABEL: Final = "candidate-for-the-next-quarter"
INTENT: Final = "transferring_money_to_an_account_abroad_before_the_next_working_day_in_euro"
OPERATOR: Final = "an-operator-whose-name-is-long@a-domain-of-some-length.example.org"
AT: Final = datetime(2026, 11, 30, 12, 34, 56, tzinfo=UTC)
CHANGE: Final = "because the figures of the last week are better in each of the languages that are spoken there"
WORDS: Final = {"rain": {INTENT: 0.9, "music": 0.1}, "song": {INTENT: 0.1, "music": 0.9}}

Case = tuple[Sequence[object], Sequence[str]]


def a_model(root: Path, model_id: str, words: Mapping[str, Mapping[str, float]] = WORDS) -> Path:
    word_model(root, model_id, (INTENT, "music"), words)
    path = root / model_id / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"ModelVersion": VERSION}))
    return root


def some_texts(folder: Path) -> Path:
    path = folder / "texts.csv"
    path.write_text(f"text,label\nrain,{INTENT}\nsong,music\nsong song,{INTENT}\nrain rain,music\n")
    return path


def of_models(folder: Path) -> Case:
    return ("models", "--model-dir", a_model(folder, LONG_ID)), (LONG_ID, VERSION)


def of_train(folder: Path) -> Case:
    options = ("--dimensions", 8, "--fc-size", 8, "--epochs", 1, "--threshold", 0.1)
    arguments = ("train", some_texts(folder), "--model-id", LONG_ID, "--model-dir", folder / "models", *options)
    return arguments, (LONG_ID,)


def of_export(folder: Path) -> Case:
    models = a_model(folder / "models", LONG_ID)
    (folder / "store").mkdir()
    options = ("--torchserve", "--model-store", folder / "store", "--model-dir", models)
    return ("export", LONG_ID, *options), (LONG_ID, VERSION)


def of_import(folder: Path) -> Case:
    arguments, _ = of_export(folder)
    assert intentctl(*arguments).exit_code == 0
    (archive,) = (folder / "store").iterdir()
    return ("import", archive, "--model-dir", folder / "models", "--replace"), (LONG_ID, VERSION)


def of_history(folder: Path) -> Case:
    (folder / "shop").mkdir()
    a_model(folder, f"shop/{VERSION}")
    name = ModelId("shop")
    first = functools.partial(released, version=VERSION, by=OPERATOR, at=AT, comment=CHANGE)
    second = functools.partial(with_label, label=LABEL, version=VERSION, by=OPERATOR, at=AT)
    change_release(folder, name, first)
    change_release(folder, name, second)
    return ("history", "shop", "--model-dir", folder), (VERSION, LABEL, OPERATOR, f"{AT:%Y-%m-%d %H:%M:%S}")


def of_evaluate(folder: Path) -> Case:
    models = a_model(folder / "models", LONG_ID)
    return ("evaluate", LONG_ID, some_texts(folder), "--model-dir", models), (INTENT,)


def of_compare(folder: Path) -> Case:
    models = a_model(folder / "models", LONG_ID)
    a_model(models, "other", {"rain": WORDS["song"], "song": WORDS["rain"]})
    return ("compare", LONG_ID, "other", some_texts(folder), "--model-dir", models), (LONG_ID, INTENT)


def of_access(folder: Path) -> Case:
    path = write_access(folder, {OPERATOR: identity_of(OPERATOR, "predict", models=(f"{LONG_ID}*", "shop-*"))})
    return ("access", "check", path), (OPERATOR, f"{LONG_ID}*")


def of_doctor(folder: Path) -> Case:
    return ("doctor", LONG_ID, "--model-dir", a_model(folder, LONG_ID)), (LONG_ID,)


CASES: Final[tuple[Callable[[Path], Case], ...]] = (
    of_models,
    of_train,
    of_export,
    of_import,
    of_history,
    of_evaluate,
    of_compare,
    of_access,
    of_doctor,
)


# The line that shows progress is overwritten, and does not stay.
PROGRESS: Final = re.compile(r"\r(\x1b\[2K)?querying .*")

pytestmark = pytest.mark.end_to_end


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_eighty_columns_cut_no_id_version_label_name_or_date(tmp_path: Path, case: Callable[[Path], Case]) -> None:
    arguments, shown = case(tmp_path)
    text = PROGRESS.sub("", printed_on_a_terminal(*map(str, arguments)).decode())
    assert [each for each in shown if each not in text] == [], text
    assert "…" not in text
