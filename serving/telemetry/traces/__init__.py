"""Distributed traces with OpenTelemetry. Imported only where traces are enabled: the library is slow to load."""
