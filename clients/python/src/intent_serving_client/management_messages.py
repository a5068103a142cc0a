"""Types of the management of models and releases, from ModelService's messages."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Final

from intent_serving_client.errors import ServingError
from intent_serving_client.fields import from_fields
from intent_serving_client.management import (
    ChangeKind,
    ModelChange,
    ModelDescription,
    ModelPage,
    ModelSummary,
    ReleaseState,
    Role,
    Trial,
    VersionDescription,
)
from intent_serving_client.releases import Canary, Release, ReleaseChange, Shadow
from intent_serving_client.residency import ModelResidency, ModelStatistics
from intent_serving_client.stubs import model_service_pb2 as pb

ROLES: Final[Mapping[Role, pb.ReleaseRole.ValueType]] = {
    "stable": pb.STABLE,
    "canary": pb.CANARY,
    "shadow": pb.SHADOW,
    "label": pb.LABEL,
}
_ROLES_OF: Final[Mapping[int, Role]] = {int(message): role for role, message in ROLES.items()}
KINDS: Final[Mapping[ChangeKind, pb.ModelChange.Kind.ValueType]] = {
    "added": pb.ModelChange.ADDED,
    "changed": pb.ModelChange.CHANGED,
    "removed": pb.ModelChange.REMOVED,
    "released": pb.ModelChange.RELEASED,
    "synchronized": pb.ModelChange.SYNCHRONIZED,
}
_KINDS_OF: Final[Mapping[int, ChangeKind]] = {int(message): kind for kind, message in KINDS.items()}


def role_message(role: Role) -> pb.ReleaseRole.ValueType:
    """Return the message of a role."""
    return ROLES[role]


def page_of(message: pb.ListModelsResponse) -> ModelPage:
    """Return the page in a message. Raises ServingError if the message is not understood."""
    return ModelPage(tuple(map(_summary_of, message.models)), message.next_page_token)


def description_of(message: pb.ModelDescription) -> ModelDescription:
    """Return the description in a message. Raises ServingError if the message is not understood."""
    return ModelDescription(
        _summary_of(message.summary),
        message.manifest,
        tuple(from_fields(VersionDescription, each, roles=tuple(each.roles)) for each in message.versions),
        state_of(message.release) if message.HasField("release") else None,
        tuple(map(model_residency_of, message.residences)),
    )


def model_residency_of(message: pb.Residence) -> ModelResidency:
    """Return a model's residency at a replica from a message."""
    statistics = from_fields(ModelStatistics, message.statistics) if message.HasField("statistics") else None
    return from_fields(ModelResidency, message, statistics=statistics)


def state_of(message: pb.ReleaseState) -> ReleaseState:
    """Return the state of a release from a message. Raises ServingError if the message is not understood."""
    try:
        return ReleaseState(message.name, _release_of(message), tuple(map(_trial_of, message.trials)))
    except ValueError as error:
        raise _not_understood() from error


def watched_of(message: pb.ModelChange) -> ModelChange | None:
    """Return the change in a message, or raise ServingError; ``None`` if the kind of change is unknown here."""
    kind = _KINDS_OF.get(message.kind)
    if kind is None:
        return None
    return ModelChange(kind, message.runId, state_of(message.release) if message.HasField("release") else None)


def _summary_of(message: pb.ModelSummary) -> ModelSummary:
    return from_fields(ModelSummary, message, versions=tuple(message.versions), release=_listed_release_of(message))


def _listed_release_of(message: pb.ModelSummary) -> Release | None:
    if not message.revision:
        return None
    return Release(
        message.revision,
        message.stable,
        Canary(message.canary, message.canary_share) if message.canary else None,
        Shadow(message.shadow, message.shadow_share) if message.shadow else None,
    )


def _release_of(message: pb.ReleaseState) -> Release | None:
    if not message.revision:
        return None
    return Release(
        message.revision,
        _version(message.stable),
        _canary_of(message.canary) if message.HasField("canary") else None,
        Shadow(_version(message.shadow.version), _rate(message.shadow.share)) if message.HasField("shadow") else None,
        dict(message.labels),
        tuple(map(_change_of, message.history)),
    )


def _canary_of(message: pb.CanaryState) -> Canary:
    bounds = message.bounds
    return Canary(
        _version(message.version),
        _rate(message.share),
        _rate(bounds.max_error_rate),
        _rate(bounds.max_disagreement),
        bounds.min_answers,
    )


def _change_of(message: pb.ReleaseChange) -> ReleaseChange:
    return from_fields(ReleaseChange, message, at=datetime.fromisoformat(message.at))


def _version(name: str) -> str:
    if not name:
        raise ValueError("a version has a name")
    return name


def _rate(value: float) -> float:
    if not 0.0 <= value <= 1.0:
        raise ValueError("a rate is from 0 to 1")
    return value


def _trial_of(message: pb.Trial) -> Trial:
    return from_fields(Trial, message, role=_ROLES_OF.get(message.role, "label"))


def _not_understood() -> ServingError:
    return ServingError("the service's answer cannot be decoded; run client and service at the same version")
