"""Rights that every method requires of its callers, stated once more: a method that is missing here fails the tests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from tests.end_to_end.access.callers import MINE, MINE_TO_BE, Caller


@dataclass(frozen=True)
class Asks:
    """Requirements of a method."""

    rights: frozenset[str]
    """Rights, any one of which is sufficient."""
    field: str = ""
    """Field of the request that names a model; empty if the method concerns no model."""
    model: str = MINE
    batch: bool = False
    """Whether each of the ``requests`` is answered with its own status."""

    def allows(self, caller: Caller) -> bool:
        """Return whether the caller may call the method."""
        return caller.rights is not None and bool(caller.rights & self.rights) and (caller.has_models or not self.field)


def asks(right: str, field: str = "", *others: str, model: str = MINE, batch: bool = False) -> Asks:
    return Asks(frozenset({right, *others}), field, model, batch)


def changes(field: str) -> Asks:
    """Return the requirements of a method that changes something; its model is missing, so nothing can change."""
    return asks("manage", field, model=MINE_TO_BE)


GRPC: Final[Mapping[str, Asks]] = {
    "prediction.PredictionService/Predict": asks("predict", "runId"),
    "prediction.PredictionService/PredictBatch": asks("predict", "runId", batch=True),
    "prediction.PredictionService/Explain": asks("explain", "runId"),
    "prediction.ModelService/ListModels": asks("predict"),
    "prediction.ModelService/DescribeModel": asks("predict", "runId"),
    "prediction.ModelService/WatchModels": asks("predict"),
    "prediction.ModelService/GetRelease": asks("predict", "name"),
    "prediction.ModelService/LoadModel": changes("runId"),
    "prediction.ModelService/UnloadModel": changes("runId"),
    "prediction.ModelService/DeleteModel": changes("runId"),
    "prediction.ModelService/Release": changes("name"),
    "prediction.ModelService/Promote": changes("name"),
    "prediction.ModelService/Rollback": changes("name"),
    "prediction.ModelService/Withdraw": changes("name"),
    # A delegate calls in the name of another caller; without a name, in its own.
    "prediction.Predictor/PredictorPredict": asks("predict", "runId"),
    "prediction.Predictor/PredictorPredictBatch": asks("predict", "runId", batch=True),
    "prediction.Predictor/Residency": asks("manage", "runId", "predict"),
    "prediction.Predictor/Traffic": asks("manage", "runId"),
    "prediction.Predictor/Load": changes("runId"),
    "prediction.Predictor/Unload": changes("runId"),
    "inference.GRPCInferenceService/ServerLive": asks("predict"),
    "inference.GRPCInferenceService/ServerReady": asks("predict"),
    "inference.GRPCInferenceService/ServerMetadata": asks("predict"),
    "inference.GRPCInferenceService/ModelReady": asks("predict", "name"),
    "inference.GRPCInferenceService/ModelMetadata": asks("predict", "name"),
    "inference.GRPCInferenceService/ModelInfer": asks("predict", "model_name"),
    "inference.GRPCInferenceService/ModelConfig": asks("predict", "name"),
    "inference.GRPCInferenceService/ModelStatistics": asks("predict", "name"),
    "inference.GRPCInferenceService/RepositoryIndex": asks("predict"),
    "inference.GRPCInferenceService/RepositoryModelLoad": changes("model_name"),
    "inference.GRPCInferenceService/RepositoryModelUnload": changes("model_name"),
}

OPEN: Final = frozenset({"grpc.health.v1.Health/Check", "grpc.health.v1.Health/List", "grpc.health.v1.Health/Watch"})
"""Methods open to all, for probes."""
FOR_ANYBODY_KNOWN: Final = frozenset({"grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"})

_MODEL: Final = "/v2/models/{model}"
_VERSION: Final = _MODEL + "/versions/{version}"

REST_OPEN: Final = frozenset({"GET /v2/health/live", "GET /v2/health/ready"})
REST: Final[Mapping[str, Asks]] = {
    "GET /v2": asks("predict"),
    "GET /v2/": asks("predict"),
    "GET /v2/models/stats": asks("predict"),
    "POST /v2/repository/index": asks("predict"),
    "POST /v2/repository/models/{model}/load": changes("model"),
    "POST /v2/repository/models/{model}/unload": changes("model"),
    **{
        f"{method} {path}{end}": asks("predict", "model")
        for path in (_MODEL, _VERSION)
        for method, end in (("GET", ""), ("GET", "/ready"), ("GET", "/config"), ("GET", "/stats"), ("POST", "/infer"))
    },
}
