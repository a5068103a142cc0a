"""Both services as one workload: builds their objects from settings."""

from __future__ import annotations

import dataclasses

from frontend.backends.coalescing import CoalescingBackend
from frontend.engines import backends_of
from frontend.router import Router
from frontend.service import catalog_of, workload
from model_service.in_process import InProcessBackend
from model_service.settings import ModelServiceSettings
from predictor.service import build_engine, collectors_of, tune_process, wanted_at_start
from predictor.servicer import predictor_service
from serving.transport.lifecycle import Workload


def build(settings: ModelServiceSettings) -> Workload:
    """Return both services as ``settings`` describe them. Called on the event loop that serves them."""
    tune_process()
    engine = build_engine(settings)
    # No call is saved here, and yet much: queries of a model go through it together, and answers leave together.
    own = CoalescingBackend(InProcessBackend(engine, wanted_at_start(settings)), calls=1)
    catalog = catalog_of(settings)
    others = backends_of(settings.further_engines(), settings, catalog, partitions=0)
    router = Router(dict.fromkeys(settings.own_algorithms(), own) | others)
    both = workload(settings, catalog, router)
    # The predictor's own service stays: it tells what is in memory, and what was asked.
    return dataclasses.replace(
        both,
        services=[*both.services, predictor_service(engine)],
        collectors=[*both.collectors, *collectors_of(engine, settings)],
    )
