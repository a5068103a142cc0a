"""The predictor: many small PyTorch intent models behind one gRPC service."""
