from __future__ import annotations

import os
import random
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from serving.domain.errors import InvalidModelFile, InvalidModelId, ModelNotFound
from serving.domain.model_id import MAX_MODEL_ID_BYTES, parse_model_id
from serving.volume.model_store import MODEL_FILES, ModelStore
from tests.serving.refusals import refused

LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
FIRST = LETTERS + "0123456789_-"
REST = FIRST + "."

GOOD = ["1", "a", "Z", "_", "-", "--", "0.1.2", "a.", "a..b", "x_model", "x_vocab", "CON", "a" * 128, "book-CNN_v1.2"]
BAD = {
    "empty": "",
    "dot": ".",
    "dots": "..",
    "parent": "../../etc",
    "absolute": "/etc",
    "inner-parent": "a/../b",
    "slash": "a/b",
    "trailing-slash": "a/",
    "backslash": r"a\..\b",
    "percent": "%2e%2e%2f",
    "nul": "a\0b",
    "nul-only": "\0",
    "newline": "a\n",
    "crlf": "a\r\n2026-01-01 level=info forged=yes",
    "ansi": "\x1b[31ma",
    "delete": "a\x7f",
    "full-width": "ａｂ",
    "arabic-digits": "١٢",
    "superscript": "a²",
    "nfc": unicodedata.normalize("NFC", "é"),
    "nfd": unicodedata.normalize("NFD", "é"),
    "zero-width": "a\u200bb",
    "byte-order-mark": "\ufeffa",
    "bidirectional": "a\u202eb",
    "long-s": "ſ",
    "kelvin": "\u212a",
    "emoji": "😀",
    "lone-surrogate": "a\ud800",
    "space": "a b",
    "leading-space": " a",
    "tab": "a\t",
    "hidden": "..data",
    "temporary": ".tmp-1",
    "drive": "C:",
    "tilde": "~root",
    "dollar": "$HOME",
    "star": "*",
    "129": "a" * 129,
    "256": "a" * 256,
    "1-mib": "a" * (1 << 20),
}


@pytest.mark.parametrize("text", GOOD, ids=lambda text: text[:20])
def test_an_id_of_the_grammar_is_taken_as_it_stands(text: str) -> None:
    assert parse_model_id(text) == text


@pytest.mark.parametrize("text", BAD.values(), ids=BAD.keys())
def test_anything_else_is_refused_without_being_repeated(text: str) -> None:
    with refused(InvalidModelId) as caught:
        parse_model_id(text)
    assert len(text) < 3 or text not in str(caught.value)


def test_ids_that_differ_in_case_only_stay_two_ids() -> None:
    assert parse_model_id("Model") != parse_model_id("model")


NASTY = st.text(st.sampled_from(REST + "./\\%\0\n\r \t\x1b²é١ａ\u200b\u202e\ud800😀"), max_size=MAX_MODEL_ID_BYTES + 4)


@given(st.one_of(st.text(max_size=MAX_MODEL_ID_BYTES + 4), NASTY, st.text(st.sampled_from(REST), max_size=140)))
@example("a\n")
@example("a" * MAX_MODEL_ID_BYTES)
@example("a" * (MAX_MODEL_ID_BYTES + 1))
def test_an_id_is_taken_exactly_when_it_is_in_the_grammar(text: str) -> None:
    in_grammar = 1 <= len(text) <= MAX_MODEL_ID_BYTES and text[0] in FIRST and all(letter in REST for letter in text)
    try:
        assert parse_model_id(text) == text
        accepted = True
    except InvalidModelId:
        accepted = False
    assert accepted == in_grammar


FRAGMENTS = ["..", ".", "/", "\\", "%2e", "%2f", "\0", "\n", "etc", "passwd", "outside", "a", "Z9", "-", "_", "é", "ａ"]


def generated_ids(count: int) -> list[str]:
    """Return ids, about a third of them within the grammar; they are the same at every run."""
    chance = random.Random(20)
    nasty = ["".join(chance.choices(FRAGMENTS, k=chance.randint(1, 8))) for _ in range(count * 3 // 4)]
    plain = ["".join(chance.choices(REST, k=chance.randint(1, 12))) for _ in range(count - len(nasty) - 5)]
    ids = [*nasty, *plain, "escape", "loop", "1", "file", "up"]
    chance.shuffle(ids)
    return ids


@pytest.mark.parametrize("count", [20_000, pytest.param(1_000_000, marks=pytest.mark.slow)])
def test_no_id_of_many_leads_to_a_call_outside_of_the_root(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int, figure: Callable[[str], None]
) -> None:
    root = tmp_path / "root"
    outside = tmp_path / "outside"
    for folder in (root / "1", outside):
        folder.mkdir(parents=True)
        for name in MODEL_FILES:
            (folder / name).write_text("{}")
    (root / "escape").symlink_to(outside)
    (root / "up").symlink_to("..")
    (root / "loop").symlink_to("loop")
    (root / "file").write_text("")
    store = ModelStore(root)
    calls = {"inside": 0, "outside": 0}

    def watched(name: str) -> None:
        real: Callable[..., Any] = getattr(os, name)

        def call(path: Any, *args: Any, **kwargs: Any) -> Any:
            # Text instead of paths: a million calls are looked at.
            descriptor = kwargs.get("dir_fd")
            folder = "" if descriptor is None else os.readlink(f"/proc/self/fd/{descriptor}")  # noqa: PTH115
            where = os.path.normpath(os.path.join(folder, os.fsdecode(path)))  # noqa: PTH118
            calls["inside" if f"{where}/".startswith(f"{root}/") else "outside"] += 1
            return real(path, *args, **kwargs)

        monkeypatch.setattr(os, name, call)

    for name in ("open", "stat", "scandir", "listdir"):
        watched(name)

    read, missing, refusals, escapes = 0, 0, 0, 0
    for text in generated_ids(count):
        try:
            model_id = parse_model_id(text)
            store.fingerprint(model_id)
            store.read(model_id, MODEL_FILES[0], 100)
            read += 1
        except InvalidModelId:
            refusals += 1
        except ModelNotFound:
            missing += 1
        except InvalidModelFile:
            escapes += 1
    monkeypatch.undo()
    figure(f"{count} generated model ids: {calls['outside']} calls outside of the model root")
    assert calls["outside"] == 0
    assert calls["inside"] > 0
    assert read > 0
    assert escapes >= 3
    assert refusals > count / 2
    assert missing > count / 5
