"""The terms for managing models and releases, which the services share with their callers."""

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

__all__ = [
    "ChangeKind",
    "ModelChange",
    "ModelDescription",
    "ModelPage",
    "ModelSummary",
    "ReleaseState",
    "Role",
    "Trial",
    "VersionDescription",
]
