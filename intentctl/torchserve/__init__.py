"""Models in TorchServe's archives: written, read as data, and the handler that serves them there."""
