"""One intent model: its files, its tokens, its vocabulary and its network."""
