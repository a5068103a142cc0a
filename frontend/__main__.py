"""``python -m frontend``: the frontend's composition root."""

from __future__ import annotations

import sys

import uvloop

from frontend.backends.backend import Backend
from frontend.backends.predictor import PredictorBackend
from frontend.catalog import Catalog
from frontend.predictions import RoutedPredictions
from frontend.router import Router
from frontend.routes import Engine, parse_routes
from frontend.servicer import prediction_service
from frontend.settings import FrontendSettings
from serving.model_store import ModelStore
from serving.query_limits import QueryLimits
from serving.settings import load_settings
from serving.telemetry.logs import configure_logs
from serving.transport.grpcio import CannotListen, GrpcioHost
from serving.transport.lifecycle import serve


def main() -> None:
    """Run the frontend until a signal."""
    settings = load_settings(FrontendSettings)
    configure_logs("frontend", settings.log_level, settings.log_format)
    try:
        uvloop.run(_run(settings))
    except CannotListen as error:
        sys.exit(f"frontend: {error}")


async def _run(settings: FrontendSettings) -> None:
    catalog = Catalog(
        ModelStore(settings.model_dir), threads=settings.file_threads, freshness_seconds=settings.freshness_seconds
    )
    limits = QueryLimits(settings.max_document_bytes, settings.max_batch_size)
    predictions = RoutedPredictions(catalog, _router(settings.routes), limits)
    host = GrpcioHost(settings, [prediction_service(predictions)])
    await serve(host, settings, get_ready=predictions.wait_until_ready, close=predictions.close)


def _router(routes: str) -> Router:
    """Return the router; algorithms of one engine share its backend."""
    backends: dict[Engine, Backend] = {}
    table: dict[str, Backend] = {}
    for algorithm, engine in parse_routes(routes).items():
        if engine not in backends:
            backends[engine] = PredictorBackend(engine.address)
        table[algorithm] = backends[engine]
    return Router(table)


if __name__ == "__main__":
    main()
