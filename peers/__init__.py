"""Real third-party servers and clients, each in its own environment, for tests and benchmarks."""
