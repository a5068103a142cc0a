"""The models there are, in pages."""

from __future__ import annotations

import base64
import binascii
from bisect import bisect_right
from collections.abc import Callable
from typing import Final, NamedTuple

from frontend.management.volume import Volume
from serving.domain.errors import InvalidModelId, InvalidRequest
from serving.domain.management import ModelPage, ModelSummary
from serving.domain.model_id import parse_model_name
from serving.volume.inventory import Inventory

MOST_ON_A_PAGE: Final = 1000
_ON_A_PAGE: Final = 100
# Of filters that fit next to nothing: a page ends here, with fewer models, and says where to go on.
_MOST_LOOKED_AT: Final = 2000


class Filter(NamedTuple):
    """Which models are listed."""

    prefix: str = ""
    """Of their names."""
    algorithm: str = ""
    """Empty: any."""
    released: bool | None = None
    """Whether the name has a release; ``None``: whether or not."""

    def admits(self, summary: ModelSummary) -> bool:
        """Return whether a model is listed; its name is looked at elsewhere."""
        return (not self.algorithm or summary.algorithm == self.algorithm) and (
            self.released is None or (summary.release is not None) == self.released
        )


class Listing:
    """Lists models by name. A page holds nothing open: its token is the last name on it.

    Args:
        inventory: what there is.
        volume: where it is read.
    """

    def __init__(self, inventory: Inventory, volume: Volume) -> None:
        self._inventory = inventory
        self._volume = volume

    async def page(self, wanted: Filter, size: int, token: str, may_use: Callable[[str], bool]) -> ModelPage:
        """Return the next page.

        Args:
            wanted: which models.
            size: the most to return; 0: 100.
            token: of the page before; empty: from the start.
            may_use: whether the caller may see a name.

        Raises:
            InvalidRequest: the token is none, or ``size`` is over 1,000.
            VolumeUnavailable: the volume cannot be listed.
        """
        if size > MOST_ON_A_PAGE:
            raise InvalidRequest(f"page_size is {MOST_ON_A_PAGE} at most; ask for further pages by their token")
        return await self._volume.reading(self._page, wanted, size or _ON_A_PAGE, _name_in(token), may_use)

    def _page(self, wanted: Filter, size: int, after: str, may_use: Callable[[str], bool]) -> ModelPage:
        every = self._inventory.names()
        rest = [
            name for name in every[bisect_right(every, after) :] if name.startswith(wanted.prefix) and may_use(name)
        ]
        found: list[ModelSummary] = []
        looked_at = 0
        while looked_at < len(rest) and looked_at < _MOST_LOOKED_AT and len(found) < size:
            summary = self._inventory.summary(rest[looked_at])
            looked_at += 1
            if summary is not None and wanted.admits(summary):
                found.append(summary)
        return ModelPage(tuple(found), _token_of(rest[looked_at - 1]) if looked_at < len(rest) else "")


def _token_of(name: str) -> str:
    return base64.urlsafe_b64encode(name.encode()).decode().rstrip("=")


def _name_in(token: str) -> str:
    if not token:
        return ""
    try:
        padding = "=" * (-len(token) % 4)
        return parse_model_name(base64.b64decode(token + padding, altchars=b"-_", validate=True).decode())
    except (binascii.Error, ValueError, InvalidModelId) as error:
        raise InvalidRequest("page_token is none of this service; take next_page_token of the page before") from error
