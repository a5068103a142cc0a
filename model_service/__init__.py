"""The frontend with the predictor inside, in one process: no hop between them, for those who need no more."""
