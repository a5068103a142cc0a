"""The gRPC API of the Open Inference Protocol."""
