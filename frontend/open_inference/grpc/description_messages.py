"""Conversion of model descriptions and statistics from domain types to messages of the protocol."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from frontend.open_inference.descriptions import MODEL_INPUT, MODEL_OUTPUTS, PLATFORM, TensorDescription
from frontend.open_inference.models import FIRST_VERSION, NamedModel
from frontend.open_inference.repository import IndexedModel
from frontend.open_inference.statistics import ModelCounts
from frontend.open_inference.tensors import BYTES, FP32, OPTIONAL_OUTPUTS
from serving.stubs import open_inference_pb2 as pb

# 18 decimal digits always fit into 64 bits.
_DIGITS: Final = re.compile(r"[0-9]{1,18}")
_DATA_TYPES: Final = {BYTES: pb.TYPE_STRING, FP32: pb.TYPE_FP32}


def metadata_of(model: NamedModel, versions: Iterable[str]) -> pb.ModelMetadataResponse:
    """Return the versions and tensors of a model."""
    return pb.ModelMetadataResponse(
        name=model.name,
        versions=versions,
        platform=PLATFORM,
        inputs=[_tensor_metadata(MODEL_INPUT)],
        outputs=map(_tensor_metadata, MODEL_OUTPUTS),
        properties={
            "algorithm": model.manifest.algorithm,
            "classes": str(len(model.manifest.classes)),
            # Clients would expect these in every answer if they were among the outputs.
            "optional_outputs": ",".join(OPTIONAL_OUTPUTS),
        },
    )


def config_of(model: NamedModel, max_documents: int) -> pb.ModelConfigResponse:
    """Return the configuration of a model, as Triton would."""
    document = MODEL_INPUT
    config = pb.ModelConfig(
        name=model.name,
        platform=PLATFORM,
        backend=PLATFORM,
        max_batch_size=max_documents,
        input=[pb.ModelInput(name=document.name, data_type=_DATA_TYPES[document.datatype], dims=document.dimensions)],
        output=[
            pb.ModelOutput(name=output.name, data_type=_DATA_TYPES[output.datatype], dims=output.dimensions)
            for output in MODEL_OUTPUTS
        ],
        # Queries that arrive together are sent to the engine together; none is delayed for it.
        dynamic_batching=pb.ModelDynamicBatching(max_queue_delay_microseconds=0),
        model_transaction_policy=pb.ModelTransactionPolicy(decoupled=False),
    )
    return pb.ModelConfigResponse(config=config)


def statistics_of(counts: Iterable[ModelCounts]) -> pb.ModelStatisticsResponse:
    """Return the statistics of the models."""
    response = pb.ModelStatisticsResponse()
    for model in counts:
        # Filled in place, because protobuf copies a message that is put into another one.
        statistics = response.model_stats.add(
            name=model.model,
            version=_whole_number(model.version),
            last_inference=model.last_milliseconds,
            inference_count=model.documents,
            execution_count=model.requests,
        )
        counted = statistics.inference_stats
        _fill(counted.success, model.requests, sum(model.times))
        _fill(counted.fail, model.failures, model.failure_nanoseconds)
        _fill(counted.queue, model.requests, model.times.look_up)
        _fill(counted.compute_input, model.requests, model.times.reading)
        _fill(counted.compute_infer, model.requests, model.times.engine)
        _fill(counted.compute_output, model.requests, model.times.writing)
    return response


def index_of(models: Iterable[IndexedModel]) -> pb.RepositoryIndexResponse:
    """Return the index of the models."""
    response = pb.RepositoryIndexResponse()
    for model in models:
        state = "UNAVAILABLE" if model.reason else "READY"
        response.models.add(name=model.name, version=model.version, state=state, reason=model.reason)
    return response


def _tensor_metadata(tensor: TensorDescription) -> pb.ModelMetadataResponse.TensorMetadata:
    return pb.ModelMetadataResponse.TensorMetadata(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)


def _whole_number(version: str) -> str:
    """Return the leading number of a version: perf_analyzer finds statistics only by a number, as in Triton."""
    digits = _DIGITS.match(version)
    return str(int(digits[0])) if digits else FIRST_VERSION


def _fill(message: pb.StatisticDuration, count: int, nanoseconds: int) -> None:
    message.count, message.ns = count, nanoseconds
