"""Servers of the Open Inference Protocol v2 over gRPC: Triton, MLServer, KServe, or another of our frontends."""
