"""Blocks of code in docs/clients.md."""

from __future__ import annotations

import re

from tests.conftest import ROOT


def blocks(language: str) -> list[str]:
    """Return the blocks in ``language``, in their order; those without a language are what programs print."""
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", (ROOT / "docs" / "clients.md").read_text(), re.MULTILINE | re.DOTALL)
    return [text for name, text in fenced if name == language]
