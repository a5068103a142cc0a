"""Whether a query may be asked, checked again where it is answered: frontends say who asks, not what they may."""

from __future__ import annotations

from serving.call.identity import Identity, Right
from serving.domain.model_id import ModelId
from serving.domain.prediction import Query
from serving.transport.guards import Access


class Permissions:
    """What may be asked by one call.

    Args:
        access: knows those in whose names frontends ask.
        identity: makes the call.
    """

    def __init__(self, access: Access, identity: Identity) -> None:
        self._access = access
        self._identity = identity
        self._delegates = Right.DELEGATE in identity.rights

    def check(self, query: Query, model_id: ModelId) -> None:
        """Return if the query may be asked: by whom the frontend names, else by who makes the call.

        Raises:
            PermissionDenied: it may not.
        """
        identity = self.identity_of(query.caller)
        identity.check(Right.PREDICT if query.explain is None else Right.EXPLAIN, model_id)

    def identity_of(self, caller: str) -> Identity:
        """Return in whose name the call, or one query of it, is made. ``caller`` is whom a frontend names, or empty.

        Raises:
            PermissionDenied: nobody of this name is known.
        """
        # Whoever may not ask in the name of others asks in their own, whatever they write.
        return self._access.named(caller) if caller and self._delegates else self._identity
