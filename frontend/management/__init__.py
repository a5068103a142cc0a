"""Models and their releases, managed: what there is, what of it is live and in memory, and how that changes."""
