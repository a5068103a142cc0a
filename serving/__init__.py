"""Code shared by the frontend and the predictor. Independent of models, engines and torch."""
