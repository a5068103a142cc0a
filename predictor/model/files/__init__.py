"""Reads files that torch.save and pickle.dump wrote, without running any code that they name."""
