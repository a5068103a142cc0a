"""The parts that every service adds around its own workload: access, certificates, metrics and traces."""
