"""prediction.Predictor, the gRPC service of the predictor."""
