"""From labelled text to a model folder. Shares tokenizer, vocabulary and network with the predictor that serves it."""
