"""Our own predictor as an engine."""
