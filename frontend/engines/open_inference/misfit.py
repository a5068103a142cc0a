"""Mismatches between a manifest and the metadata of the engine's model, which Triton gives and MLServer may omit."""

from __future__ import annotations

from serving.domain.errors import InvalidManifest
from serving.domain.manifest import OpenInferenceModel
from serving.stubs import open_inference_pb2 as pb

# Sizes of a dimension that fit one document or several; -1 means any size.
_FITTING = (-1, 1)


def misfit_of(model: OpenInferenceModel, metadata: pb.ModelMetadataResponse) -> InvalidManifest | None:
    """Return the error for a manifest whose tensors do not match the model's; ``None`` if no mismatch is known."""
    fault = _fault_of_input(model, metadata) or _fault_of_outputs(model, metadata)
    if fault is None:
        return None
    return InvalidManifest(f"the engine's model {fault}; correct OpenInference in manifest.json")


def _fault_of_input(model: OpenInferenceModel, metadata: pb.ModelMetadataResponse) -> str | None:
    tensor = next((tensor for tensor in metadata.inputs if tensor.name == model.input), None)
    if tensor is None:
        return f"has no input {model.input!r}" if metadata.inputs else None
    if tensor.datatype != "BYTES":
        return f"has an input {model.input!r} that is not of type BYTES"
    if len(tensor.shape) != len(model.shape) or any(size not in _FITTING for size in tensor.shape):
        return f"has an input {model.input!r} of shape {list(tensor.shape)}, and not of {list(model.shape)}"
    return None


def _fault_of_outputs(model: OpenInferenceModel, metadata: pb.ModelMetadataResponse) -> str | None:
    there = {tensor.name for tensor in metadata.outputs}
    missing = [name for name in (model.label, model.score, model.logits) if name is not None and name not in there]
    return f"has no output {missing[0]!r}" if there and missing else None
