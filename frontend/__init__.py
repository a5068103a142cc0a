"""The frontend: routes each request to the engine that the model's manifest names. Needs no torch."""
