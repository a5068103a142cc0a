"""A pipeline that is ready to take documents."""

from __future__ import annotations

from frontend.engines.submission import Done, Withdraw
from frontend.pipelines.call import PipelineCall, pipelines_of
from frontend.pipelines.walk import PipelineModel, Surroundings, Walk
from serving.call.call import Call
from serving.call.identity import ANYBODY
from serving.domain.errors import ModelUnusable, ServingError
from serving.domain.manifest import Manifest
from serving.domain.pipelines.pipeline import MOST_DEPTH
from serving.domain.prediction import Query


class PreparedPipeline:
    """Receiver of the queries for one pipeline.

    Args:
        model: the pipeline.
        manifest: manifest that defines the pipeline.
        around: what all pipelines share.
        gives_rights: whether callers of the pipeline may ask its models, whatever their own rights.
    """

    def __init__(self, model: PipelineModel, manifest: Manifest, around: Surroundings, *, gives_rights: bool) -> None:
        self.manifest = manifest
        self.pipeline = model.pipeline
        self._model = model
        self._around = around
        self._gives_rights = gives_rights

    def submit(self, query: Query, call: Call, done: Done) -> Withdraw | None:
        """Send the document on its way; ``done`` is called with the answer or the error."""
        try:
            inner = self.call_to_models(call)
        except ServingError as error:
            done(error)
            return None
        walk = Walk(self._model, self._around, query, inner, done)
        walk.begin()
        return None if walk.has_ended else walk.withdraw

    def call_to_models(self, call: Call, *, as_caller: bool = False) -> PipelineCall:
        """Return the call to the models of the steps.

        Args:
            call: the call to the pipeline.
            as_caller: whether the caller's own rights count, even if the pipeline gives others.

        Raises:
            ModelUnusable: pipelines lead back to this one, or are too deep.
        """
        outer = pipelines_of(call)
        model_id = self._model.model_id
        way = (*outer, model_id)
        if model_id in outer or len(way) > MOST_DEPTH:
            raise ModelUnusable(f"the pipelines {' -> '.join(way)} lead in a circle or too deep; correct their steps")
        identity = call.identity
        if self._gives_rights and not as_caller and identity is not ANYBODY:
            identity = identity.trusted_with(self.pipeline.models)
        return PipelineCall(call, way, identity)
