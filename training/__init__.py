"""Turns labelled texts into a model folder. Shares tokenizer, vocabulary and network with the predictor."""
