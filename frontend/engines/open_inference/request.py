"""Requests to a server of the Open Inference Protocol: documents as one BYTES tensor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from serving.domain.errors import InvalidRequest
from serving.domain.manifest import Manifest
from serving.domain.model_id import ModelId, reference_of
from serving.domain.prediction import Query
from serving.stubs import open_inference_pb2 as pb
from serving.wire.raw_tensors import pack_bytes

_DOCUMENTS: Final = -1
MOST_CHARACTERS: Final = 1 << 18
"""Maximum number of characters in one request. At most 1 MiB in UTF-8: servers accept messages of 4 MiB by default."""


def most_documents(manifest: Manifest) -> int:
    """Return the maximum number of documents in one request."""
    model = manifest.open_inference
    return model.max_batch_size if _DOCUMENTS in model.shape else 1


def request_of(manifest: Manifest, queries: Sequence[Query], request_id: str) -> pb.ModelInferRequest:
    """Return the request that sends all of ``queries`` to the model of ``manifest``.

    Raises:
        InvalidRequest: a document contains text that UTF-8 cannot encode, such as a lone surrogate.
    """
    model = manifest.open_inference
    try:
        documents = [query.document.encode() for query in queries]
    except UnicodeEncodeError as error:
        raise InvalidRequest("document must be text that UTF-8 can encode") from error
    called = model.model or manifest.model_name
    name, version = reference_of(ModelId(queries[0].model_id))
    request = pb.ModelInferRequest(
        model_name=called or name,
        # If the manifest gives no name, our version is assumed to have the same name at the server.
        model_version=model.version if called else model.version or version,
        id=request_id,
    )
    shape = [len(documents) if size == _DOCUMENTS else size for size in model.shape]
    tensor = request.inputs.add(name=model.input, datatype="BYTES", shape=shape)
    if model.contents == "raw":
        request.raw_input_contents.append(pack_bytes(documents))
    else:
        tensor.contents.bytes_contents.extend(documents)
    for output in (model.label, model.score, model.logits):
        if output is not None:
            request.outputs.add(name=output)
    return request
