"""The call that a pipeline makes to the models of its steps."""

from __future__ import annotations

from collections.abc import Sequence

from serving.call.call import Call, CallNotes
from serving.call.deadline import Deadline
from serving.call.identity import Identity
from serving.call.spans import Span
from serving.domain.model_id import ModelId
from serving.domain.pipelines.pipeline import MOST_QUESTIONS


class Questions:
    """Number of models that one document may still be sent to, by a pipeline and those that it asks."""

    __slots__ = ("left",)

    def __init__(self) -> None:
        self.left = MOST_QUESTIONS

    def take(self, number: int) -> bool:
        """Return whether the document may be sent to ``number`` more models."""
        self.left -= number
        return self.left >= 0


class PipelineCall(Call):
    """Call on behalf of a pipeline's caller. It takes no notes: those of the caller's call are about the pipeline.

    Only the time that was lost at steps without an answer is noted there.

    Args:
        call: the call that the pipeline answers.
        pipelines: pipelines that lead here, the outermost first.
        identity: the caller, with the rights that the pipeline gives it.
    """

    def __init__(self, call: Call, pipelines: Sequence[ModelId], identity: Identity) -> None:
        super().__init__(call.request_id, call.deadline, identity, call.span)
        self.caller_notes: CallNotes = call.caller_notes if isinstance(call, PipelineCall) else call.notes
        """Notes of the caller's own call."""
        self.pipelines = pipelines
        self.questions: Questions = call.questions if isinstance(call, PipelineCall) else Questions()
        """Questions that are left for the document."""
        self.is_counted = call.is_counted

    @property
    def is_inner(self) -> bool:
        """Always true."""
        return True

    def with_deadline(self, deadline: Deadline) -> PipelineCall:
        """Return the call with another deadline."""
        copy = PipelineCall(self, self.pipelines, self.identity)
        copy.deadline = deadline
        return copy

    def with_identity(self, identity: Identity) -> PipelineCall:
        """Return the call with another identity."""
        return PipelineCall(self, self.pipelines, identity)

    def apart(self, deadline: Deadline) -> PipelineCall:
        """Return a call of its own, which knows the same pipelines: it must not lead in a circle either."""
        copy = PipelineCall(super().apart(deadline), self.pipelines, self.identity)
        copy.questions = self.questions
        return copy

    def with_span(self, span: Span) -> PipelineCall:
        """Return the call with ``span``."""
        copy = PipelineCall(self, self.pipelines, self.identity)
        copy.span = span
        return copy

    def note_unanswered(self, seconds: float) -> None:
        """Note the time that a document has spent at steps that had no answer."""
        notes = self.caller_notes
        notes.unanswered_seconds = max(notes.unanswered_seconds, seconds)


def pipelines_of(call: Call) -> Sequence[ModelId]:
    """Return the pipelines that lead to ``call``, the outermost first; empty for a caller's own call."""
    return call.pipelines if isinstance(call, PipelineCall) else ()
