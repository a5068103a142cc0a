"""``python -m predictor``: the predictor's composition root."""

from __future__ import annotations

import os

from predictor.settings import PredictorSettings
from serving.runtime.hosting import run
from serving.runtime.program import Program
from serving.runtime.settings import load_settings
from serving.runtime.standard_streams import open_closed_streams


def main() -> None:
    """Run the predictor until a signal stops it."""
    open_closed_streams()
    settings = load_settings(PredictorSettings)
    # Parallelism comes from many requests at once; threads within one request would only contend with each other.
    # NumPy reads this variable on import, which happens when the predictor is built.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    run(Program("predictor", "predictor.service:build"), settings)


if __name__ == "__main__":
    main()
