"""How good the answers of a model are, and which of two models answers better."""
