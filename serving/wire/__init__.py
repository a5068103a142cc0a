"""Communication between processes: protobuf messages, channels and clients."""
