"""Settings of both services in one process."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from frontend.routing.routes import Engine, parse_routes
from frontend.settings import EngineSettings
from predictor.settings import PredictorSettings
from serving.runtime.settings import Share, service_settings


class ModelServiceSettings(PredictorSettings, EngineSettings):
    """Serves intent models itself, and routes predictions of other algorithms to their engines.

    Every setting is a flag or an environment variable (in brackets); flags take precedence.
    """

    model_config = service_settings("INTENT_MODEL_SERVICE_", "model_service")

    algorithms: str = Field(
        default="intent-classification",
        min_length=1,
        description="algorithms served by this process, separated by commas",
    )
    routes: str = Field(
        default="", description="engines of further algorithms, as algorithm=kind://host:port, separated by commas"
    )

    # Callers reach this service directly, as they do a frontend.
    trace_share: Share = Field(
        default=0.01,
        description="share of the calls without a traceparent that are traced; for others, the traceparent decides",
    )

    @model_validator(mode="after")
    def _served_once(self) -> Self:
        twice = set(self.own_algorithms()) & set(self.further_engines())
        if twice:
            raise ValueError(f"{', '.join(sorted(twice))}: served by this process and by a route; keep one")
        self.check_names(self.further_engines().values())
        return self

    def own_algorithms(self) -> tuple[str, ...]:
        """Return the algorithms that are served in this process."""
        return tuple(name.strip() for name in self.algorithms.split(",") if name.strip())

    def further_engines(self) -> dict[str, Engine]:
        """Return the engines of the other algorithms. Raises ValueError if a route is malformed."""
        return dict(parse_routes(self.routes)) if self.routes.strip() else {}
