"""Figures: measured as ratios within one run, answers verified before anything is timed."""
