"""Cost of metrics, traces and log lines in throughput."""
