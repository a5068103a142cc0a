"""Real servers and clients of others, each in an environment of its own, for tests and benchmarks."""
