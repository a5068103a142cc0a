"""One module per command. Commands import what they need when they run, so that a prediction does not load torch."""
