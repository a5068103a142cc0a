"""``python -m tests.end_to_end.transports``: the program under test."""

from __future__ import annotations

from serving.runtime.hosting import run
from serving.runtime.settings import load_settings
from tests.end_to_end.transports.program import PROGRAM, Settings

if __name__ == "__main__":
    run(PROGRAM, load_settings(Settings))
