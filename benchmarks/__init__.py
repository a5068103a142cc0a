"""Benchmarks: figures are ratios within one run, and answers are verified before anything is timed."""
