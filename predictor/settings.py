"""Settings of the predictor."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from serving.domain.byte_sizes import Bytes
from serving.domain.errors import InvalidModelId
from serving.domain.model_id import parse_model_ids
from serving.runtime.settings import MOST, Seconds, ServerSettings, Share, service_settings


def _well_written(value: str) -> str:
    try:
        parse_model_ids(value)
    except InvalidModelId as error:
        raise ValueError(str(error).replace("runId", "each model id")) from error
    return value


ModelIds = Annotated[str, AfterValidator(_well_written)]
"""Model ids, separated by commas."""


class PredictorSettings(ServerSettings):
    """Serves PyTorch intent models from the shared volume: loaded on request, evicted when least recently used.

    Every setting is a flag or an environment variable (in brackets); flags take precedence.
    """

    model_config = service_settings("INTENT_PREDICTOR_", "predictor")

    model_memory: Bytes = Field(
        default=0,
        ge=0,
        le=1 << 50,
        description="memory for models, such as 1GiB, 1Gi or 500MB; 0: a share of the container's memory, or else of"
        " the machine's",
    )
    preload: ModelIds = Field(
        default="", description="ids of the models that are loaded before health reports SERVING, separated by commas"
    )
    pin: ModelIds = Field(
        default="", description="ids of the models that are preloaded and never evicted, separated by commas"
    )
    max_models: int = Field(default=100_000, ge=1, le=MOST, description="maximum number of models in memory")
    max_loads: int = Field(
        default=1024,
        ge=1,
        le=MOST,
        description="maximum number of models that wait to be loaded, at most half of them versions of one name;"
        " further ones are refused with RESOURCE_EXHAUSTED",
    )
    max_weights_bytes: Bytes = Field(default=256 << 20, ge=1, le=1 << 50, description="maximum size of model.pth")
    max_vocabulary_bytes: Bytes = Field(default=64 << 20, ge=1, le=1 << 50, description="maximum size of vocab.pth")
    max_load_processor_seconds: Seconds = Field(
        default=30.0,
        description="processor time after which the load of a model is refused, in seconds; its files are tried again"
        " when they change, or after ten minutes",
    )
    max_counted_models: int = Field(
        default=4096,
        ge=1,
        le=1_000_000,
        description="maximum number of models whose traffic is counted; the least recently queried ones are dropped",
    )
    trace_share: Share = Field(
        default=0.0,
        description="share of the calls without a traceparent that are traced; for others, the traceparent decides,"
        " such as that of a frontend that traces the call",
    )
    inference_threads: int = Field(
        default=2, ge=1, le=256, description="number of threads for long documents and batches"
    )
    max_inferences_waiting: int = Field(
        default=1024,
        ge=0,
        le=MOST,
        description="maximum number of long documents and batches that wait for a thread; further ones are refused with"
        " RESOURCE_EXHAUSTED",
    )
