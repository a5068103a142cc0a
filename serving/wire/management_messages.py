"""ModelService's messages from the domain's types."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Final

from intent_serving_client.management_messages import KINDS, ROLES
from intent_serving_client.releases import Canary, ReleaseChange, moment
from serving.domain.management import (
    ModelChange,
    ModelDescription,
    ModelPage,
    ModelSummary,
    ReleaseState,
    Role,
    Trial,
)
from serving.domain.residency import ModelResidency
from serving.stubs import model_service_pb2 as pb

_ROLES_OF: Final[Mapping[int, Role]] = {int(message): role for role, message in ROLES.items()}


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


def description_message(description: ModelDescription) -> pb.ModelDescription:
    """Return the message of one model."""
    return pb.ModelDescription(
        summary=summary_message(description.summary),
        manifest=description.manifest,
        versions=[pb.VersionDescription(**asdict(version)) for version in description.versions],
        release=None if description.release is None else state_message(description.release),
        residences=map(model_residency_message, description.residences),
    )


def model_residency_message(residency: ModelResidency) -> pb.Residence:
    """Return the message of a model's residency at a replica."""
    return pb.Residence(**asdict(residency))


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


def watched_message(change: ModelChange) -> pb.ModelChange:
    """Return the message of a change to a model."""
    return pb.ModelChange(
        kind=KINDS[change.kind],
        runId=change.model_id,
        release=None if change.release is None else state_message(change.release, history=1),
    )


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


def _change_message(change: ReleaseChange) -> pb.ReleaseChange:
    return pb.ReleaseChange(**asdict(change) | {"at": moment(change.at)})


def _trial_message(trial: Trial) -> pb.Trial:
    return pb.Trial(**asdict(trial) | {"role": ROLES[trial.role]})
