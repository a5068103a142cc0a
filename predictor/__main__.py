"""``python -m predictor``: the predictor's composition root."""

from __future__ import annotations

import os
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
    # Work comes from many requests at once; threads inside of one would only get into each other's way. NumPy reads
    # this when it is imported, which help, and what is wrong with the settings, need not wait for.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from predictor.service import run  # noqa: PLC0415

    try:
        uvloop.run(run(settings))
    except CannotListen as error:
        sys.exit(f"predictor: {error}")


if __name__ == "__main__":
    main()
