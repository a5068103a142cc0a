"""The Python client of ModelService, which manages models and releases over gRPC.

with ManagementClient("127.0.0.1:51001") as models:
    state = models.release_of("helpdesk")
    models.release("helpdesk", "2", expected_revision=state.revision)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

from intent_serving_client.client_base import BlockingClient
from intent_serving_client.management import ModelChange, ModelDescription, ModelPage, ModelSummary, ReleaseState, Role
from intent_serving_client.management_messages import (
    description_of,
    model_residency_of,
    page_of,
    role_message,
    state_of,
    watched_of,
)
from intent_serving_client.releases import MAX_HISTORY, WithdrawableRole
from intent_serving_client.residency import ModelResidency
from intent_serving_client.stubs import model_service_pb2 as pb
from intent_serving_client.stubs import model_service_pb2_grpc as pb_grpc

_ON_A_PAGE: Final = 1000


class ManagementClient(BlockingClient):
    """Blocking client of a frontend's ModelService. Close it, or use ``with``.

    Every method raises ServingError if the call fails: ReleaseConflict if another caller has changed the release,
    ModelUnusable, with the reason, if the service refuses.

    Args:
        address: address of the frontend, ``host:port``.
        timeout: timeout of a call, in seconds.
        options: TLS, and the caller's certificate and credential.
    """

    _stub_of = pb_grpc.ModelServiceStub
    # A version that is released is loaded first.
    _default_timeout_seconds = 60.0

    def models(self, *, prefix: str = "", algorithm: str = "", released: bool | None = None) -> Iterator[ModelSummary]:
        """Yield all models by name, fetched page by page.

        Args:
            prefix: prefix of the names.
            algorithm: algorithm of the models, or of their stable versions; empty: any.
            released: whether the name has a release; ``None``: either.
        """
        token = ""
        while True:
            page = self.page(prefix=prefix, algorithm=algorithm, released=released, size=_ON_A_PAGE, token=token)
            yield from page.models
            token = page.next_page_token
            if not token:
                return

    def page(
        self,
        *,
        prefix: str = "",
        algorithm: str = "",
        released: bool | None = None,
        size: int = 0,
        token: str = "",
    ) -> ModelPage:
        """Return the page at ``token``, which is empty for the first page. Filters are those of :meth:`models`."""
        request = pb.ListModelsRequest(prefix=prefix, algorithm=algorithm, page_size=size, page_token=token)
        if released is not None:
            request.released = released
        return page_of(self._call(self._open_stub().ListModels, request))

    def describe(self, model_id: str) -> ModelDescription:
        """Return the description of a model."""
        return description_of(self._call(self._open_stub().DescribeModel, pb.DescribeModelRequest(runId=model_id)))

    def load(self, model_id: str) -> ModelResidency | None:
        """Load a model into memory and return its residency; ``None`` if its engine does not report it."""
        response = self._call(self._open_stub().LoadModel, pb.LoadModelRequest(runId=model_id))
        return model_residency_of(response.residence) if response.HasField("residence") else None

    def unload(self, model_id: str) -> None:
        """Release the memory that a model holds."""
        self._call(self._open_stub().UnloadModel, pb.UnloadModelRequest(runId=model_id))

    def delete(self, model_id: str, *, force: bool = False) -> None:
        """Delete a model, or a version, from the volume; with ``force``, even if it is protected."""
        self._call(self._open_stub().DeleteModel, pb.DeleteModelRequest(runId=model_id, force=force))

    def watch(self, *, prefix: str = "", initial: bool = False) -> Iterator[ModelChange]:
        """Yield changes until the service ends or the iterator is closed.

        Args:
            prefix: prefix of the names to watch.
            initial: whether to begin with everything that exists, each as ``added``, followed by ``synchronized``.
        """
        stream = self._open_stub().WatchModels(pb.WatchModelsRequest(prefix=prefix, initial=initial))
        try:
            with self._peer.errors():
                for message in stream:
                    change = watched_of(message)
                    if change is not None:
                        yield change
        finally:
            stream.cancel()

    def release_of(self, name: str, *, history: int = MAX_HISTORY) -> ReleaseState:
        """Return the release of a name, with its latest ``history`` changes."""
        return self._changed(self._open_stub().GetRelease, pb.GetReleaseRequest(name=name, history=history))

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
        """Make a version live, and return the release with this change.

        Args:
            name: a name with versions.
            version: one of the versions.
            role: role of the version in the release.
            label: label of the version; with the role ``label``.
            share: share of the calls; with the roles ``canary`` and ``shadow``.
            max_error_rate: error rate of a canary above which it is taken back.
            max_disagreement: disagreement of a canary with stable above which it is taken back.
            min_answers: number of answers before which a canary is not judged.
            expected_revision: revision that the caller knows; 0: no release exists. ``None``: any.
            comment: reason for the change.
        """
        request = pb.ReleaseRequest(
            name=name,
            version=version,
            role=role_message(role),
            label=label,
            share=share,
            expected_revision=expected_revision,
            comment=comment,
        )
        bounds = pb.CanaryBounds(
            max_error_rate=max_error_rate, max_disagreement=max_disagreement, min_answers=min_answers
        )
        if bounds.ListFields():
            request.bounds.CopyFrom(bounds)
        return self._changed(self._open_stub().Release, request)

    def promote(self, name: str, *, expected_revision: int | None = None, comment: str = "") -> ReleaseState:
        """Make the canary stable, and return the release with this change. Arguments are those of :meth:`release`."""
        request = pb.PromoteRequest(name=name, expected_revision=expected_revision, comment=comment)
        return self._changed(self._open_stub().Promote, request)

    def rollback(
        self, name: str, version: str = "", *, expected_revision: int | None = None, comment: str = ""
    ) -> ReleaseState:
        """Make the former stable version, or ``version``, stable again, and return the release with this change."""
        request = pb.RollbackRequest(name=name, version=version, expected_revision=expected_revision, comment=comment)
        return self._changed(self._open_stub().Rollback, request)

    def withdraw(
        self,
        name: str,
        role: WithdrawableRole,
        *,
        label: str = "",
        expected_revision: int | None = None,
        comment: str = "",
    ) -> ReleaseState:
        """End the canary or the shadow, or remove a label, and return the release with this change."""
        request = pb.WithdrawRequest(
            name=name,
            role=role_message(role),
            label=label,
            expected_revision=expected_revision,
            comment=comment,
        )
        return self._changed(self._open_stub().Withdraw, request)

    def _changed(self, method: Callable[..., pb.ReleaseState], request: Any) -> ReleaseState:
        return state_of(self._call(method, request))

    def _call(self, method: Callable[..., Any], request: Any) -> Any:
        with self._peer.errors(self._timeout):
            return method(request, timeout=self._timeout)
