"""Between processes: protobuf messages, channels and clients."""
