"""The Open Inference Protocol v2 on the frontend, for clients of Triton, KServe and MLServer."""
