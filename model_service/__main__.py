"""``python -m model_service``: the composition root of both services in one process."""

from __future__ import annotations

import os

from model_service.settings import ModelServiceSettings
from serving.runtime.hosting import run
from serving.runtime.program import Program
from serving.runtime.settings import load_settings
from serving.runtime.standard_streams import open_closed_streams


def main() -> None:
    """Run both services until a signal arrives."""
    open_closed_streams()
    settings = load_settings(ModelServiceSettings)
    # NumPy reads this when it is imported, as in the predictor.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    run(Program("model_service", "model_service.service:build"), settings)


if __name__ == "__main__":
    main()
