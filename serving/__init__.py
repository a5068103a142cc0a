"""What the frontend and the predictor share. Knows no model, no engine and no torch."""
