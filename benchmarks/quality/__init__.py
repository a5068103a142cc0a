"""How good the models are that ``intentctl train`` makes: trained again with several seeds, and measured."""

import os

# As the predictor has it; NumPy reads it when it is loaded.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
