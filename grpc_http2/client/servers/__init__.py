"""The servers behind a channel: which one gets a call, and the connection to each."""
