"""Models in TorchServe archives: writing them, reading them as data, and the handler that serves them there."""
