"""What metrics, traces and log lines cost in throughput."""
