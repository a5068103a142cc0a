"""TorchServe 0.12 as an engine: it is told over gRPC which archives to serve, and then asked."""
