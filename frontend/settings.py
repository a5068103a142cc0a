"""Settings of the frontend."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from pydantic import Field, field_validator

from frontend.backends.torchserve.options import TorchServeOptions
from frontend.routes import parse_routes
from serving.settings import Seconds, ServerSettings, service_settings

_TORCHSERVE: Final = TorchServeOptions()


class EngineSettings(ServerSettings):
    """How engines are asked."""

    calls_in_flight: int = Field(
        default=2,
        ge=1,
        le=1024,
        description="calls at the same time to an engine and partition, or model; what comes meanwhile goes with the"
        " next one",
    )
    torchserve_models: int = Field(
        default=_TORCHSERVE.most_models,
        ge=1,
        le=4096,
        description="models that this frontend keeps registered at a TorchServe, each with processes of its own; beyond"
        " them the least recently used is unregistered",
    )
    torchserve_workers: int = Field(
        default=_TORCHSERVE.workers, ge=1, le=256, description="processes of a model at a TorchServe"
    )
    torchserve_batch_size: int = Field(
        default=_TORCHSERVE.batch_size, ge=1, le=4096, description="most requests that TorchServe gives a model at once"
    )
    torchserve_batch_delay_milliseconds: int = Field(
        default=_TORCHSERVE.batch_delay_milliseconds,
        ge=1,
        le=60_000,
        description="how long TorchServe waits for a batch to fill",
    )
    torchserve_registration_seconds: Seconds = Field(
        default=_TORCHSERVE.registration_seconds,
        description="how long TorchServe may take to start a model's processes",
    )
    torchserve_response_seconds: int = Field(
        default=_TORCHSERVE.response_seconds,
        ge=1,
        le=86_400,
        description="after how many seconds TorchServe starts a process again that does not answer",
    )
    torchserve_key_file: Path | None = Field(
        default=None,
        description="TorchServe's key_file.json, where it asks for tokens; read again when a key is refused",
    )


class FrontendSettings(EngineSettings):
    """Routes each prediction to the engine that the model's manifest names.

    Every setting is a flag or an environment variable (in brackets); flags win.
    """

    model_config = service_settings("INTENT_FRONTEND_", "frontend")

    routes: str = Field(
        default="intent-classification=predictor://127.0.0.1:51002",
        description="the engine of each algorithm, as algorithm=kind://host:port, separated by commas; the kind is"
        " predictor, torchserve or open-inference; the host may be a name of several replicas, or ip:port of each may"
        " follow",
    )
    partitions: int = Field(
        default=0,
        ge=0,
        le=4096,
        description="models are spread over replicas in so many groups, and calls hold one; 0: enough for a name or a"
        " list, and 1 for one address",
    )

    @field_validator("routes")
    @classmethod
    def _well_written(cls, value: str) -> str:
        parse_routes(value)
        return value
