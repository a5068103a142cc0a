"""``python -m frontend``: the frontend's composition root."""

from __future__ import annotations

from frontend.settings import FrontendSettings
from serving.runtime.hosting import run
from serving.runtime.program import Program
from serving.runtime.settings import load_settings
from serving.runtime.standard_streams import open_closed_streams


def main() -> None:
    """Run the frontend until a signal arrives."""
    open_closed_streams()
    run(Program("frontend", "frontend.service:build"), load_settings(FrontendSettings))


if __name__ == "__main__":
    main()
