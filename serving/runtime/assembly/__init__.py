"""What every service has around its own workload: access, certificates, metrics and traces."""
