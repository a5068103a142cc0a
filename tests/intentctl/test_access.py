"""``intentctl access``: keys that services accept, and files that are checked before they are put in force."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from intentctl.__main__ import app
from intentctl.output import EXIT_FAILED, EXIT_USAGE
from serving.access.keys import hash_of
from tests.access import Issuer, identity_of, in_the_past, write_access


def run(*arguments: str | Path) -> Any:
    return CliRunner().invoke(app, ["access", *map(str, arguments)])


def test_a_key_comes_with_what_the_file_takes_of_it(tmp_path: Path) -> None:
    made = json.loads(run("key", "--json", "--days", "30", "--comment", "of the laptop").stdout)
    assert made["entry"]["sha256"] == hash_of(made["key"])
    assert made["entry"]["comment"] == "of the laptop"
    assert (datetime.fromisoformat(made["entry"]["expires"]) - datetime.now(UTC)).days in (29, 30)
    path = write_access(tmp_path, {"acme": {"keys": [made["entry"]], "rights": ["predict"], "models": ["*"]}})
    assert run("check", path).exit_code == 0


def test_a_key_may_be_good_for_ever_and_is_never_made_twice() -> None:
    first, second = (json.loads(run("key").stdout) for _ in range(2))
    assert set(first["entry"]) == {"sha256"}
    assert first["key"] != second["key"]


def test_a_file_is_told_by_who_may_do_what(tmp_path: Path) -> None:
    acme = identity_of("acme", "predict", "explain", models=["acme-*"], limits={"requests_per_second": 5})
    acme["keys"][0]["expires"] = in_the_past()
    path = write_access(tmp_path, {"acme": acme, "nobody": {}}, issuer=Issuer())
    told = json.loads(run("check", path, "--json").stdout)
    assert told["tokens"]
    assert told["identities"][0] == {
        "identity": "acme", "rights": ["explain", "predict"], "models": ["acme-*"], "keys": 1, "expired": 1,
        "certificates": [], "limits": {"requests_per_second": 5.0},
    }  # fmt: skip
    lines = run("check", path).stdout.splitlines()
    assert lines[1].split("\t") == ["acme", "explain, predict", "acme-*", "1", "1", "", "requests_per_second 5"]


@pytest.mark.parametrize("content", ["", "{}", '{"identities": {"a": {"rights": ["everything"]}}}'])
def test_a_file_that_cannot_be_used_is_told(content: str, tmp_path: Path) -> None:
    path = tmp_path / "access.json"
    path.write_text(content)
    run_ = run("check", path)
    assert run_.exit_code == EXIT_FAILED
    assert "the access file" in run_.stderr


def test_a_file_that_is_not_there_is_a_wrong_call(tmp_path: Path) -> None:
    assert run("check", tmp_path / "nowhere").exit_code == EXIT_USAGE


def test_a_key_file_that_is_missing_is_told(tmp_path: Path) -> None:
    path = write_access(tmp_path, {}, issuer=Issuer())
    (tmp_path / "issuer.pem").unlink()
    run_ = run("check", path)
    assert (run_.exit_code, "key-1" in run_.stderr) == (EXIT_FAILED, True)
