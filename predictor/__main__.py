"""``python -m predictor``: the predictor's composition root."""

from __future__ import annotations

import os

from predictor.settings import PredictorSettings
from serving.runtime.hosting import run
from serving.runtime.program import Program
from serving.runtime.settings import load_settings


def main() -> None:
    """Run the predictor until a signal."""
    settings = load_settings(PredictorSettings)
    # Work comes from many requests at once; threads inside of one would only get into each other's way. NumPy reads
    # this when it is imported, which is when the predictor is built.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    run(Program("predictor", "predictor.service:build"), settings)


if __name__ == "__main__":
    main()
