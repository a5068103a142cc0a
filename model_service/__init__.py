"""The frontend with the predictor inside, in one process without a hop between them, where no more is needed."""
