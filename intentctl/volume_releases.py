"""Changes of releases on the volume itself, without a frontend, for deployments whose services may only read it.

Before a version goes live, it is loaded and tried here, as the predictor would do; the services follow automatically.
"""

from __future__ import annotations

import functools
import getpass
from datetime import UTC, datetime
from pathlib import Path

from intent_serving_client.releases import MAX_HISTORY, WithdrawableRole
from predictor.model.loader import FileLimits, Loader
from serving.domain.errors import ModelNotFound, ReleaseRefused, ServingError
from serving.domain.management import ReleaseState, Role
from serving.domain.model_id import ModelId, parse_model_id, parse_model_name, versioned
from serving.domain.releases.changes import promoted, rolled_back, withdrawn
from serving.domain.releases.example import check_answer, example_query
from serving.domain.releases.views import view_of
from serving.volume.deleting import delete
from serving.volume.inventory import Inventory
from serving.volume.model_store import ModelStore
from serving.volume.planning import Transition, planned, releasing
from serving.volume.release_writing import change_release


class VolumeReleases:
    """Manager of a model folder, as :class:`~intent_serving_client.ManagementClient` is of a frontend.

    Args:
        root: the model folder.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._store = ModelStore(root)
        self._inventory = Inventory(self._store)

    def delete(self, model_id: str, *, force: bool = False) -> None:
        """Delete a model or a version from the volume. Raises as :func:`~serving.volume.deleting.delete` does."""
        delete(self._root, parse_model_id(model_id), force=force)

    def release_of(self, name: str, *, history: int = MAX_HISTORY) -> ReleaseState:
        """Return the release of a name with the latest ``history`` changes.

        Raises:
            ServingError: the release cannot be read.
        """
        release = self._inventory.existing_release(parse_model_name(name))
        return ReleaseState(name, view_of(release, history))

    def release(
        self,
        name: str,
        version: str,
        *,
        role: Role = "stable",
        label: str = "",
        share: float | None = None,
        max_error_rate: float | None = None,
        max_disagreement: float | None = None,
        min_answers: int | None = None,
        expected_revision: int | None = None,
        comment: str = "",
    ) -> ReleaseState:
        """Make a version live. The arguments are those of the client.

        Raises:
            ReleaseRefused: the change makes no sense, or the version cannot go live.
            ServingError: as :func:`~serving.volume.release_writing.change_release` does.
        """
        bounds = {"max_error_rate": max_error_rate, "max_disagreement": max_disagreement, "min_answers": min_answers}
        checked = parse_model_name(name)
        transition = releasing(self._inventory, checked, version, role, label=label, share=share, bounds=bounds)
        return self._changed(name, transition, expected_revision, comment)

    def promote(self, name: str, *, expected_revision: int | None = None, comment: str = "") -> ReleaseState:
        """Make the canary stable. Raises as :meth:`release` does."""
        return self._changed(name, promoted, expected_revision, comment)

    def rollback(
        self, name: str, version: str = "", *, expected_revision: int | None = None, comment: str = ""
    ) -> ReleaseState:
        """Make the former stable version, or ``version``, stable again. Raises as :meth:`release` does."""
        return self._changed(name, functools.partial(rolled_back, version=version), expected_revision, comment)

    def withdraw(
        self,
        name: str,
        role: WithdrawableRole,
        *,
        label: str = "",
        expected_revision: int | None = None,
        comment: str = "",
    ) -> ReleaseState:
        """End the canary or the shadow, or remove a label. Raises as :meth:`release` does."""
        change = functools.partial(withdrawn, role=role, label=label)
        return self._changed(name, change, expected_revision, comment, tries=False)

    def _changed(
        self,
        name: str,
        transition: Transition,
        expected_revision: int | None,
        comment: str,
        *,
        tries: bool = True,
    ) -> ReleaseState:
        checked = parse_model_name(name)
        change = functools.partial(transition, by=_user(), at=datetime.now(UTC), comment=comment)
        plan = planned(self._inventory, checked, change, expected_revision)
        if tries:
            self._try(checked, plan.version)
        release = change_release(self._root, checked, plan, expected_revision=expected_revision)
        return ReleaseState(checked, view_of(release, history=1))

    def _try(self, name: ModelId, version: str) -> None:
        """Check that the version can go live: it can be loaded, and answers its manifest's example."""
        if version not in self._inventory.version_names(name):
            raise ModelNotFound(f"{name} has no version {version}; publish it first, as {name}@{version}")
        model_id = versioned(name, version)
        try:
            manifest = self._store.read_manifest(model_id)
            if manifest.is_elsewhere:
                raise ReleaseRefused("the model's engine has to be queried; release it through a frontend")
            model, _ = Loader(self._store, FileLimits()).load_at_rest(model_id)
            (answer,) = model.predict([example_query(model_id, manifest)])
            if isinstance(answer, ServingError):
                raise answer
            check_answer(manifest, answer)
        except ServingError as error:
            raise ReleaseRefused(f"{version} does not go live, and the release stays as it is: {error}") from error


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return ""  # a container's user may have no name
