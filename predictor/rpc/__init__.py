"""gRPC service of the predictor, ``prediction.Predictor``."""
