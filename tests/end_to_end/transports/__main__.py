"""``python -m tests.end_to_end.transports``: the program under test."""

from __future__ import annotations

from serving.settings import load_settings
from serving.transport.hosting import run
from tests.end_to_end.transports.program import PROGRAM, Settings

if __name__ == "__main__":
    run(PROGRAM, load_settings(Settings))
