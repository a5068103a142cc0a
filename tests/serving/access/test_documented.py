"""The examples in docs/security.md are access files that services accept, and all rights are explained there."""

from __future__ import annotations

import re

import pytest

from serving.access.access_file import AccessFile
from serving.call.identity import Right
from tests.conftest import ROOT

TEXT = (ROOT / "docs" / "security.md").read_text()
EXAMPLES = re.findall(r"```json\n(.*?)```", TEXT, re.DOTALL)


@pytest.mark.parametrize("example", EXAMPLES, ids=range(len(EXAMPLES)))
def test_an_example_is_an_access_file(example: str) -> None:
    content = AccessFile.parse(example.encode())
    assert content.identity_of("acme").may_use("acme-1")


def test_the_first_example_shows_everything() -> None:
    content = AccessFile.parse(EXAMPLES[0].encode())
    assert content.jwt is not None
    assert content.jwt.claim == "email"
    assert content.identities["acme"].limits is not None
    assert content.identity_of("operator@example.com").rights == {Right.PREDICT, Right.EXPLAIN, Right.MANAGE}


def test_every_right_is_explained() -> None:
    assert all(f"`{right.value}` (" in TEXT for right in Right)
