"""Settings of the frontend."""

from __future__ import annotations

from pydantic import Field, field_validator

from frontend.routes import parse_routes
from serving.settings import ServerSettings, service_settings


class FrontendSettings(ServerSettings):
    """Routes each prediction to the engine that the model's manifest names.

    Every setting is a flag or an environment variable (in brackets); flags win.
    """

    model_config = service_settings("INTENT_FRONTEND_", "frontend")

    routes: str = Field(
        default="intent-classification=predictor://127.0.0.1:51002",
        description="the engine of each algorithm, as algorithm=kind://host:port, separated by commas; the host may be"
        " a name of several replicas, or ip:port of each may follow",
    )

    calls_in_flight: int = Field(
        default=2,
        ge=1,
        le=1024,
        description="calls at the same time to a predictor and partition; what comes meanwhile goes with the next one",
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
