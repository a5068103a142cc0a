"""Reads the files that torch.save and pickle.dump wrote, without running anything that they say."""
