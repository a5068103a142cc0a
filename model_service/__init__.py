"""The frontend with the predictor inside, in one process without a hop between them, for users who need no more."""
