"""Permission check of queries, repeated where they are answered: frontends name the caller, not the caller's rights."""

from __future__ import annotations

from serving.call.identity import Identity, Right
from serving.domain.errors import PermissionDenied
from serving.domain.model_id import ModelId
from serving.domain.prediction import Query
from serving.transport.guards import Access


class Permissions:
    """Permissions of the queries of one call.

    Args:
        access: knows the callers on whose behalf frontends make calls.
        identity: identity that makes the call.
    """

    def __init__(self, access: Access, identity: Identity) -> None:
        self._access = access
        self._identity = identity
        self._delegates = Right.DELEGATE in identity.rights

    def check(self, query: Query, model_id: ModelId) -> None:
        """Check that the caller named by the frontend, or else the identity of the call, may make the query.

        Raises:
            PermissionDenied: the query is not permitted.
        """
        identity = self.identity_of(query.caller)
        right = Right.PREDICT if query.explain is None else Right.EXPLAIN
        try:
            identity.check(right, model_id)
        except PermissionDenied as error:
            if not self._delegates or query.caller:
                raise
            # The frontend asks in its own name for callers of pipelines that give rights, and for tries of releases.
            raise PermissionDenied(
                f"the frontend's own credential has no right to {right} with this model at the predictor, which"
                ' pipelines with "Rights": "pipeline" and releases need; add the right and the model to the frontend\'s'
                " entry in the predictor's access file"
            ) from error

    def identity_of(self, caller: str) -> Identity:
        """Return the identity on whose behalf the call, or one of its queries, is made.

        ``caller`` is the name that a frontend gives, or empty.

        Raises:
            PermissionDenied: no identity has this name.
        """
        # Without the right to delegate, an identity acts on its own behalf, whatever caller it names.
        return self._access.named(caller) if caller and self._delegates else self._identity
