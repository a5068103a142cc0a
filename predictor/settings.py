"""Settings of the predictor."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, ByteSize, Field

from serving.domain.errors import InvalidModelId
from serving.domain.model_id import parse_model_ids
from serving.runtime.settings import ServerSettings, Share, service_settings


def _well_written(value: str) -> str:
    try:
        parse_model_ids(value)
    except InvalidModelId as error:
        raise ValueError(str(error).replace("runId", "each model id")) from error
    return value


ModelIds = Annotated[str, AfterValidator(_well_written)]
"""Model ids, separated by commas."""


class PredictorSettings(ServerSettings):
    """Answers with PyTorch intent models from the shared volume, loaded on request, least recently used out.

    Every setting is a flag or an environment variable (in brackets); flags win.
    """

    model_config = service_settings("INTENT_PREDICTOR_", "predictor")

    model_memory: ByteSize = Field(
        default=ByteSize(0),
        ge=0,
        le=1 << 50,
        description="memory for models, as 1GiB or 500MB; 0: a share of the container's, else the machine's, memory",
    )
    preload: ModelIds = Field(default="", description="models loaded before health says SERVING: ids, with commas")
    pin: ModelIds = Field(default="", description="models that are preloaded and never evicted: ids, with commas")
    max_models: int = Field(default=100_000, ge=1, description="most models in memory")
    max_loads: int = Field(default=1024, ge=1, description="most models waiting to be loaded; more: RESOURCE_EXHAUSTED")
    max_weights_bytes: ByteSize = Field(default=ByteSize(256 << 20), ge=1, description="largest model.pth that is read")
    max_vocabulary_bytes: ByteSize = Field(
        default=ByteSize(64 << 20), ge=1, description="largest vocab.pth that is read"
    )
    max_counted_models: int = Field(
        default=4096, ge=1, le=1_000_000, description="most models whose traffic is counted; those asked longest ago go"
    )
    trace_share: Share = Field(
        default=0.0,
        description="share of the calls without a traceparent that are traced; where there is one, as of a frontend"
        " that traces the call, it decides",
    )
    inference_threads: int = Field(default=2, ge=1, le=256, description="threads for long documents and batches")
    max_inferences_waiting: int = Field(
        default=1024,
        ge=0,
        description="most long documents and batches that wait for a thread; more: RESOURCE_EXHAUSTED",
    )
