"""What Prometheus sees of the predictor."""
