"""From a model id to the engine that serves it: manifests, algorithms and routes."""
