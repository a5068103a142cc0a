"""Models and releases, managed over gRPC: the Python client of ModelService.

with ManagementClient("127.0.0.1:51001") as models:
    state = models.release_of("helpdesk")
    models.release("helpdesk", "2", expected_revision=state.revision)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Final, Self

import grpc

from serving.domain.management import ModelChange, ModelDescription, ModelPage, ModelSummary, ReleaseState, Role
from serving.domain.releases.changes import Trial
from serving.domain.releases.release import MAX_HISTORY
from serving.domain.residency import ModelResidency
from serving.stubs import model_service_pb2 as pb
from serving.stubs import model_service_pb2_grpc as pb_grpc
from serving.wire.channels import PLAIN, ChannelOptions, open_channel
from serving.wire.client import DEFAULT_ADDRESS
from serving.wire.management_messages import (
    description_of,
    model_residency_of,
    page_of,
    role_message,
    state_of,
    watched_of,
)
from serving.wire.remote import error_of_call

DEFAULT_TIMEOUT_SECONDS: Final = 60.0
"""A version that is released is loaded first."""
_ON_A_PAGE: Final = 1000


class ManagementClient:
    """Asks a frontend's ModelService, and waits for the answer. Close it, or use ``with``.

    Every method raises ServingError where there is no answer: ReleaseConflict where somebody else has changed the
    release, ModelUnusable where the service refuses, with the reason.

    Args:
        address: of the frontend, ``host:port``.
        timeout: seconds that a call may take.
        options: TLS, the caller's certificate, and its credential.
    """

    def __init__(
        self,
        address: str = DEFAULT_ADDRESS,
        *,
        timeout: float = DEFAULT_TIMEOUT_SECONDS,
        options: ChannelOptions = PLAIN,
    ) -> None:
        self._timeout = timeout
        self._channel = open_channel(address, options)
        self._stub = pb_grpc.ModelServiceStub(self._channel)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()

    def models(self, *, prefix: str = "", algorithm: str = "", released: bool | None = None) -> Iterator[ModelSummary]:
        """Give all models by name, page by page.

        Args:
            prefix: of their names.
            algorithm: of the models, or of their stable versions; empty: any.
            released: whether the name has a release; ``None``: whether or not.
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
        """Return the page behind ``token``, which is empty for the first one. Filters as for :meth:`models`."""
        request = pb.ListModelsRequest(prefix=prefix, algorithm=algorithm, page_size=size, page_token=token)
        if released is not None:
            request.released = released
        return page_of(self._ask(self._stub.ListModels, request))

    def describe(self, model_id: str) -> ModelDescription:
        """Return all that is known of a model."""
        return description_of(self._ask(self._stub.DescribeModel, pb.DescribeModelRequest(runId=model_id)))

    def load(self, model_id: str) -> ModelResidency | None:
        """Have a model in memory; ``None`` where its engine does not tell how it is there."""
        response = self._ask(self._stub.LoadModel, pb.LoadModelRequest(runId=model_id))
        return model_residency_of(response.residence) if response.HasField("residence") else None

    def unload(self, model_id: str) -> None:
        """Let go of what a model holds in memory."""
        self._ask(self._stub.UnloadModel, pb.UnloadModelRequest(runId=model_id))

    def delete(self, model_id: str, *, force: bool = False) -> None:
        """Take a model, or a version, from the volume; with ``force`` though it is protected."""
        self._ask(self._stub.DeleteModel, pb.DeleteModelRequest(runId=model_id, force=force))

    def watch(self, *, prefix: str = "", initial: bool = False) -> Iterator[ModelChange]:
        """Give what changes, until the service ends or the iterator is closed.

        Args:
            prefix: of the names that are meant.
            initial: begin with all that there is, each as added, and then ``synchronized``.
        """
        stream = self._stub.WatchModels(pb.WatchModelsRequest(prefix=prefix, initial=initial))
        try:
            for message in stream:
                change = watched_of(message)
                if change is not None:
                    yield change
        except grpc.RpcError as error:
            raise _error_of(error) from error
        finally:
            stream.cancel()

    def release_of(self, name: str, *, history: int = MAX_HISTORY) -> ReleaseState:
        """Return the release of a name with the latest ``history`` changes."""
        return self._changed(self._stub.GetRelease, pb.GetReleaseRequest(name=name, history=history))

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
            name: has versions.
            version: one of them.
            role: as what.
            label: with the role ``label``.
            share: of the calls, with ``canary`` and ``shadow``.
            max_error_rate: of a canary, beyond which it is taken back.
            max_disagreement: of a canary with stable, beyond which it is taken back.
            min_answers: before which a canary is not judged.
            expected_revision: the revision that the caller knows; 0: there is none. ``None``: whatever it is.
            comment: why.
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
        return self._changed(self._stub.Release, request)

    def promote(self, name: str, *, expected_revision: int | None = None, comment: str = "") -> ReleaseState:
        """Make the canary stable, and return the release with this change. Arguments as for :meth:`release`."""
        request = pb.PromoteRequest(name=name, expected_revision=expected_revision, comment=comment)
        return self._changed(self._stub.Promote, request)

    def rollback(
        self, name: str, version: str = "", *, expected_revision: int | None = None, comment: str = ""
    ) -> ReleaseState:
        """Make what was stable before, or ``version``, stable again, and return the release with this change."""
        request = pb.RollbackRequest(name=name, version=version, expected_revision=expected_revision, comment=comment)
        return self._changed(self._stub.Rollback, request)

    def withdraw(
        self, name: str, role: Trial, *, label: str = "", expected_revision: int | None = None, comment: str = ""
    ) -> ReleaseState:
        """End the canary or the shadow, or take a label away, and return the release with this change."""
        request = pb.WithdrawRequest(
            name=name,
            role=role_message(role),
            label=label,
            expected_revision=expected_revision,
            comment=comment,
        )
        return self._changed(self._stub.Withdraw, request)

    def _changed(self, method: Callable[..., pb.ReleaseState], request: Any) -> ReleaseState:
        return state_of(self._ask(method, request))

    def _ask(self, method: Callable[..., Any], request: Any) -> Any:
        try:
            return method(request, timeout=self._timeout)
        except grpc.RpcError as error:
            raise _error_of(error) from error


def _error_of(error: grpc.RpcError) -> Exception:
    failed: Any = error
    return error_of_call(failed, "frontend")
