"""What a service takes in one query and in one batch."""

from __future__ import annotations

from collections.abc import Sized
from dataclasses import dataclass
from typing import Final

from serving.errors import DocumentTooLarge, InvalidRequest
from serving.prediction import Query

_MAX_BYTES_PER_CHARACTER: Final = 4


@dataclass(frozen=True, slots=True)
class QueryLimits:
    """Bounds on queries."""

    max_document_bytes: int
    """Of a document in UTF-8."""
    max_batch_size: int
    """Queries in one batch."""

    def check(self, query: Query) -> None:
        """Return if the document is within the bound.

        Raises:
            DocumentTooLarge: it is not.
        """
        document = query.document
        if len(document) * _MAX_BYTES_PER_CHARACTER <= self.max_document_bytes:
            return
        if len(document.encode("utf-8", "surrogatepass")) > self.max_document_bytes:
            raise DocumentTooLarge(f"document must be at most {self.max_document_bytes} bytes of UTF-8; shorten it")

    def check_batch(self, queries: Sized) -> None:
        """Return if the batch is within the bound.

        Raises:
            InvalidRequest: it is not.
        """
        if len(queries) > self.max_batch_size:
            raise InvalidRequest(f"a batch must have at most {self.max_batch_size} requests; split it")
