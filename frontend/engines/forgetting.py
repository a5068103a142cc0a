"""Unloading of removed models one by one, whatever the outcome for each."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from frontend.engines.backend import Removed
from serving.domain.errors import ServingError


async def forget_each(models: Sequence[Removed], forget: Callable[[Removed], Awaitable[None]]) -> None:
    """Call ``forget`` with each model; a failure does not stop the attempts for the others.

    Raises:
        ServingError: the first failure.
    """
    failure: ServingError | None = None
    for model in models:
        try:
            await forget(model)
        except ServingError as error:
            failure = failure or error
    if failure is not None:
        raise failure
