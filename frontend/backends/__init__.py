"""One file an engine, all behind the interface of ``backend``."""
