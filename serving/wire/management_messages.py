"""Conversion between ModelService's messages and the domain's types, in both directions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Final

from pydantic import ValidationError

from serving.domain.errors import ServingError
from serving.domain.fields import from_fields
from serving.domain.management import (
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
from serving.domain.releases.release import Canary, Release, ReleaseChange, Shadow
from serving.domain.residency import ModelResidency, ModelStatistics
from serving.stubs import model_service_pb2 as pb

_ROLES: Final[Mapping[Role, pb.ReleaseRole.ValueType]] = {
    "stable": pb.STABLE,
    "canary": pb.CANARY,
    "shadow": pb.SHADOW,
    "label": pb.LABEL,
}
_ROLES_OF: Final[Mapping[int, Role]] = {int(message): role for role, message in _ROLES.items()}
_KINDS: Final[Mapping[ChangeKind, pb.ModelChange.Kind.ValueType]] = {
    "added": pb.ModelChange.ADDED,
    "changed": pb.ModelChange.CHANGED,
    "removed": pb.ModelChange.REMOVED,
    "released": pb.ModelChange.RELEASED,
    "synchronized": pb.ModelChange.SYNCHRONIZED,
}
_KINDS_OF: Final[Mapping[int, ChangeKind]] = {int(message): kind for kind, message in _KINDS.items()}


def role_message(role: Role) -> pb.ReleaseRole.ValueType:
    """Return the message of a role."""
    return _ROLES[role]


def role_of(message: int) -> Role | None:
    """Return the role that a message names; ``None`` if it names no known role."""
    return _ROLES_OF.get(message)


def summary_message(summary: ModelSummary) -> pb.ModelSummary:
    """Return the message of one entry of a list of models."""
    message = pb.ModelSummary(
        name=summary.name,
        algorithm=summary.algorithm,
        model_version=summary.model_version,
        labels=summary.labels,
        bytes=summary.bytes,
        versions=summary.versions,
        problem=summary.problem,
    )
    release = summary.release
    if release is not None:
        message.revision = release.revision
        message.stable = release.stable
        if release.canary is not None:
            message.canary, message.canary_share = release.canary.version, release.canary.share
        if release.shadow is not None:
            message.shadow, message.shadow_share = release.shadow.version, release.shadow.share
    return message


def page_message(page: ModelPage) -> pb.ListModelsResponse:
    """Return the message of a page."""
    return pb.ListModelsResponse(models=map(summary_message, page.models), next_page_token=page.next_page_token)


def page_of(message: pb.ListModelsResponse) -> ModelPage:
    """Return the page in a message. Raises ServingError if the message is not understood."""
    return ModelPage(tuple(map(_summary_of, message.models)), message.next_page_token)


def description_message(description: ModelDescription) -> pb.ModelDescription:
    """Return the message of one model."""
    return pb.ModelDescription(
        summary=summary_message(description.summary),
        manifest=description.manifest,
        versions=[pb.VersionDescription(**asdict(version)) for version in description.versions],
        release=None if description.release is None else state_message(description.release),
        residences=map(model_residency_message, description.residences),
    )


def description_of(message: pb.ModelDescription) -> ModelDescription:
    """Return the description in a message. Raises ServingError if the message is not understood."""
    return ModelDescription(
        _summary_of(message.summary),
        message.manifest,
        tuple(from_fields(VersionDescription, each, roles=tuple(each.roles)) for each in message.versions),
        state_of(message.release) if message.HasField("release") else None,
        tuple(map(model_residency_of, message.residences)),
    )


def model_residency_message(residence: ModelResidency) -> pb.Residence:
    """Return the message of a model's residency at a replica."""
    return pb.Residence(**asdict(residence))


def model_residency_of(message: pb.Residence) -> ModelResidency:
    """Return a model's residency at a replica from a message."""
    statistics = from_fields(ModelStatistics, message.statistics) if message.HasField("statistics") else None
    return from_fields(ModelResidency, message, statistics=statistics)


def state_message(state: ReleaseState, history: int | None = None) -> pb.ReleaseState:
    """Return the message of a release with its latest ``history`` changes; ``None``: with all."""
    message = pb.ReleaseState(name=state.name, trials=map(_trial_message, state.trials))
    release = state.release
    if release is None:
        return message
    message.revision = release.revision
    message.stable = release.stable
    if release.canary is not None:
        message.canary.CopyFrom(_canary_message(release.canary))
    if release.shadow is not None:
        message.shadow.version, message.shadow.share = release.shadow.version, release.shadow.share
    message.labels.update(release.labels)
    message.history.extend(map(_change_message, release.history[:history]))
    return message


def state_of(message: pb.ReleaseState) -> ReleaseState:
    """Return the state of a release from a message. Raises ServingError if the message is not understood."""
    try:
        return ReleaseState(message.name, _release_of(message), tuple(map(_trial_of, message.trials)))
    except (ValidationError, ValueError) as error:
        raise _not_understood() from error


def watched_message(change: ModelChange) -> pb.ModelChange:
    """Return the message of a change to a model."""
    return pb.ModelChange(
        kind=_KINDS[change.kind],
        runId=change.model_id,
        release=None if change.release is None else state_message(change.release, history=1),
    )


def watched_of(message: pb.ModelChange) -> ModelChange | None:
    """Return the change in a message, or raise ServingError; ``None`` if the kind of change is unknown here."""
    kind = _KINDS_OF.get(message.kind)
    if kind is None:
        return None
    return ModelChange(kind, message.runId, state_of(message.release) if message.HasField("release") else None)


def _summary_of(message: pb.ModelSummary) -> ModelSummary:
    try:
        release = (
            Release(
                revision=message.revision,
                stable=message.stable,
                canary=Canary(version=message.canary, share=message.canary_share) if message.canary else None,
                shadow=Shadow(version=message.shadow, share=message.shadow_share) if message.shadow else None,
            )
            if message.revision
            else None
        )
    except ValidationError as error:
        raise _not_understood() from error
    return from_fields(ModelSummary, message, versions=tuple(message.versions), release=release)


def _canary_message(canary: Canary) -> pb.CanaryState:
    return pb.CanaryState(
        version=canary.version,
        share=canary.share,
        bounds=pb.CanaryBounds(
            max_error_rate=canary.max_error_rate,
            max_disagreement=canary.max_disagreement,
            min_answers=canary.min_answers,
        ),
    )


def _canary_of(message: pb.CanaryState) -> Canary:
    return Canary(
        version=message.version,
        share=message.share,
        max_error_rate=message.bounds.max_error_rate,
        max_disagreement=message.bounds.max_disagreement,
        min_answers=message.bounds.min_answers,
    )


def _change_message(change: ReleaseChange) -> pb.ReleaseChange:
    return pb.ReleaseChange(**change.model_dump(exclude={"at"}), at=_moment(change.at))


def _change_of(message: pb.ReleaseChange) -> ReleaseChange:
    return ReleaseChange.model_validate(
        {name: getattr(message, name) for name in ReleaseChange.model_fields}
        | {"at": datetime.fromisoformat(message.at)}
    )


def _moment(at: datetime) -> str:
    """Return a time in UTC, in the format of RFC 3339."""
    known = at if at.tzinfo is not None else at.replace(tzinfo=UTC)
    return known.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _release_of(message: pb.ReleaseState) -> Release | None:
    if not message.revision:
        return None
    return Release(
        revision=message.revision,
        stable=message.stable,
        canary=_canary_of(message.canary) if message.HasField("canary") else None,
        shadow=Shadow(version=message.shadow.version, share=message.shadow.share)
        if message.HasField("shadow")
        else None,
        labels=dict(message.labels),
        history=tuple(map(_change_of, message.history)),
    )


def _trial_message(trial: Trial) -> pb.Trial:
    return pb.Trial(**asdict(trial) | {"role": _ROLES[trial.role]})


def _trial_of(message: pb.Trial) -> Trial:
    return from_fields(Trial, message, role=_ROLES_OF.get(message.role, "label"))


def _not_understood() -> ServingError:
    return ServingError("the service's answer cannot be decoded; run client and service at the same version")
