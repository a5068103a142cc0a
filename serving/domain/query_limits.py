"""Limits of one query and of one batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from serving.domain.errors import DocumentTooLarge, InvalidRequest
from serving.domain.prediction import Query

_MAX_LABELS: Final = 1 << 16
# A caller that wants all labels requests far more than any model has.
_MOST_LABELS_COUNTED: Final = 1 << 10
_MAX_BYTES_PER_CHARACTER: Final = 4
_MAX_EXPLAINED_LABELS: Final = 1 << 8
_MAX_EXPLAINED_CHARACTERS: Final = 1 << 16


def best_labels(query: Query) -> int:
    """Return the number of best labels that a query counts for in its batch."""
    return min(query.k, _MOST_LABELS_COUNTED)


def explained_characters(query: Query) -> int:
    """Return the number of characters to explain for a query: those of its document for each label."""
    return 0 if query.explain is None else len(query.document) * (1 + len(query.explain))


def fit_in_one_answer(labels: int, characters: int) -> bool:
    """Return whether a batch may request this many :func:`best_labels` and :func:`explained_characters`."""
    return labels <= _MAX_LABELS and characters <= _MAX_EXPLAINED_CHARACTERS


@dataclass(frozen=True, slots=True)
class QueryLimits:
    """Limits on queries."""

    max_document_bytes: int
    """Maximum size of a document in UTF-8, in bytes."""
    max_batch_size: int
    """Maximum number of queries in one batch."""

    def check(self, query: Query) -> None:
        """Check that the document and the options of the query are within the limits.

        Raises:
            DocumentTooLarge: the document is not.
            InvalidRequest: the options are not.
        """
        # This form also refuses NaN.
        if query.threshold is not None and not 0.0 <= query.threshold <= 1.0:
            raise InvalidRequest("threshold must be from 0 to 1; omit it to use the model's own")
        if query.explain is not None:
            if len(query.explain) > _MAX_EXPLAINED_LABELS:
                raise InvalidRequest(f"at most {_MAX_EXPLAINED_LABELS} labels can be explained at once; request fewer")
            if explained_characters(query) > _MAX_EXPLAINED_CHARACTERS:
                raise InvalidRequest("the document is too long to explain so many labels; shorten it, or request fewer")
        document = query.document
        if len(document) * _MAX_BYTES_PER_CHARACTER <= self.max_document_bytes:
            return
        if len(document.encode("utf-8", "surrogatepass")) > self.max_document_bytes:
            raise DocumentTooLarge(f"document must be at most {self.max_document_bytes} bytes of UTF-8; shorten it")

    def check_batch(self, queries: Sequence[Query]) -> None:
        """Check that the batch, and the answers it requests, are within the limits.

        Raises:
            InvalidRequest: the batch exceeds a limit.
        """
        if len(queries) > self.max_batch_size:
            raise InvalidRequest(f"a batch must have at most {self.max_batch_size} requests; split it")
        if sum(map(best_labels, queries)) > _MAX_LABELS:
            raise InvalidRequest(f"a batch may request at most {_MAX_LABELS} best labels; lower k, or split the batch")
        if sum(map(explained_characters, queries)) > _MAX_EXPLAINED_CHARACTERS:
            raise InvalidRequest(
                f"a batch may request explanations of at most {_MAX_EXPLAINED_CHARACTERS} characters of "
                "documents, counted once per label; request fewer labels, or split the batch"
            )
