"""The protocol's REST form: JSON and Triton's binary tensors instead of protobuf, before the same servicer."""
