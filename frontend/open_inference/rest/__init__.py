"""REST API of the protocol: JSON and Triton's binary tensors instead of protobuf, over the same servicer."""
