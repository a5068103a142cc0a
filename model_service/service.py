"""Both services as one workload, built from settings."""

from __future__ import annotations

import dataclasses

from frontend.assembly import metrics
from frontend.assembly.engines import backends_of
from frontend.batching.coalesced import coalesced
from frontend.routing.router import Router
from frontend.service import catalog_of, workload
from model_service.in_process import InProcessBackend
from model_service.settings import ModelServiceSettings
from predictor.rpc.servicer import predictor_service
from predictor.service import build_engine, collectors_of, tune_process, wanted_at_start
from serving.runtime.assembly.access import access_of, behind
from serving.runtime.workload import Workload
from serving.volume.freshness.comparison import ProcessComparison


def build(settings: ModelServiceSettings) -> Workload:
    """Return both services as ``settings`` describe them. Called on the event loop that serves them."""
    tune_process()
    access = access_of(settings)
    comparison = ProcessComparison()
    engine = build_engine(settings, comparison)
    # Coalescing saves no call here, but queries go through a model together, and answers are sent together.
    counts = metrics.query_counts(settings)
    in_process = InProcessBackend(engine, wanted_at_start(settings))
    own = coalesced(in_process, calls=1, counts=counts, predict_now=in_process.predict_now)
    catalog = catalog_of(settings, comparison)
    others = backends_of(settings.further_engines(), settings, catalog, partitions=0, counts=counts)
    router = Router(dict.fromkeys(settings.own_algorithms(), own) | others)
    both = workload(settings, catalog, router, comparison)
    # Keep the predictor's own service, which reports the models in memory and the queries to them.
    complete = dataclasses.replace(
        both,
        services=[*both.services, predictor_service(engine, access)],
        collectors=[*both.collectors, *metrics.collectors_of(counts, settings), *collectors_of(engine, settings)],
    )
    return behind(access, complete)
