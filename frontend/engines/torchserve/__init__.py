"""TorchServe 0.12 as an engine: archives are registered with it over gRPC, and then queried."""
