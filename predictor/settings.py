"""Settings of the predictor."""

from __future__ import annotations

from pydantic import ByteSize, Field

from serving.settings import ServerSettings, service_settings


class PredictorSettings(ServerSettings):
    """Answers with PyTorch intent models from the shared volume, loaded on request, least recently used out.

    Every setting is a flag or an environment variable (in brackets); flags win.
    """

    model_config = service_settings("INTENT_PREDICTOR_", "predictor")

    model_memory: ByteSize = Field(
        default=ByteSize(1 << 30), ge=1 << 20, description="memory for models, as 1GiB or 500MB; the rest is evicted"
    )
    max_models: int = Field(default=100_000, ge=1, description="most models in memory")
    max_loads: int = Field(default=1024, ge=1, description="most models waiting to be loaded; more: RESOURCE_EXHAUSTED")
    max_weights_bytes: ByteSize = Field(default=ByteSize(256 << 20), ge=1, description="largest model.pth that is read")
    max_vocabulary_bytes: ByteSize = Field(
        default=ByteSize(64 << 20), ge=1, description="largest vocab.pth that is read"
    )
    inference_threads: int = Field(default=2, ge=1, le=256, description="threads for long documents and batches")
