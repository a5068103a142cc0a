"""Paged list of the existing models."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from typing import Final, NamedTuple

from frontend.management.page_tokens import name_in, token_of
from frontend.management.volume import Volume
from serving.domain.errors import InvalidRequest
from serving.domain.management import ModelPage, ModelSummary
from serving.volume.inventory import Inventory

MOST_ON_A_PAGE: Final = 1000
_ON_A_PAGE: Final = 100
# Bound for filters that match almost nothing: the page ends early, and its token continues from there.
MOST_EXAMINED: Final = 2000


class Filter(NamedTuple):
    """Criteria for the models to list."""

    prefix: str = ""
    """Prefix of the names."""
    algorithm: str = ""
    """Algorithm of the models; empty: any."""
    released: bool | None = None
    """Whether the name has a release; ``None``: either."""

    def admits(self, summary: ModelSummary) -> bool:
        """Return whether a model matches; its name is checked elsewhere."""
        return (not self.algorithm or summary.algorithm == self.algorithm) and (
            self.released is None or (summary.release is not None) == self.released
        )


class Listing:
    """List of models by name. No state is kept between pages: the token of a page is the last name that it covers.

    Args:
        inventory: lists names, versions and releases.
        volume: runs the blocking reads in threads.
        most_examined: maximum number of models that are examined for one page.
    """

    def __init__(self, inventory: Inventory, volume: Volume, most_examined: int = MOST_EXAMINED) -> None:
        self._inventory = inventory
        self._volume = volume
        self._most_examined = most_examined

    async def page(self, wanted: Filter, size: int, token: str, may_use: Callable[[str], bool]) -> ModelPage:
        """Return the next page.

        Args:
            wanted: criteria for the models.
            size: maximum number of models; 0: 100.
            token: token of the previous page; empty: from the start.
            may_use: whether the caller may see a name.

        Raises:
            InvalidRequest: the token is invalid, or ``size`` is over 1,000.
            VolumeUnavailable: the volume cannot be listed.
        """
        if size > MOST_ON_A_PAGE:
            raise InvalidRequest(f"page_size must be at most {MOST_ON_A_PAGE}; request further pages by their token")
        return await self._volume.reading(self._page, wanted, size or _ON_A_PAGE, name_in(token), may_use)

    def _page(self, wanted: Filter, size: int, after: str, may_use: Callable[[str], bool]) -> ModelPage:
        every = self._inventory.names()
        rest = [
            name for name in every[bisect_right(every, after) :] if name.startswith(wanted.prefix) and may_use(name)
        ]
        found: list[ModelSummary] = []
        examined = 0
        while examined < len(rest) and examined < self._most_examined and len(found) < size:
            summary = self._inventory.summary(rest[examined])
            examined += 1
            if summary is not None and wanted.admits(summary):
                found.append(summary)
        return ModelPage(tuple(found), token_of(rest[examined - 1]) if examined < len(rest) else "")
