"""prediction.PredictionService, the gRPC service of the frontend."""
