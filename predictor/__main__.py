"""``python -m predictor``: the predictor's composition root."""

from __future__ import annotations

import sys

import uvloop

from predictor.settings import PredictorSettings
from serving.settings import load_settings
from serving.telemetry.logs import configure_logs
from serving.transport.grpcio import CannotListen


def main() -> None:
    """Run the predictor until a signal."""
    settings = load_settings(PredictorSettings)
    configure_logs("predictor", settings.log_level, settings.log_format)
    # Torch takes seconds to import: help, and what is wrong with the settings, must not wait for it.
    from predictor.service import run  # noqa: PLC0415

    try:
        uvloop.run(run(settings))
    except CannotListen as error:
        sys.exit(f"predictor: {error}")


if __name__ == "__main__":
    main()
