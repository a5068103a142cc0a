"""Quality of the models that ``intentctl train`` makes: they are trained with several seeds, and measured."""

import os

# As in the predictor; NumPy reads this variable when it is imported.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
