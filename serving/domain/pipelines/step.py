"""One step of a pipeline, as a manifest writes it."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Final, Literal, Self

from pydantic import ConfigDict, Field, field_validator, model_validator

from serving.domain.bounded import Part, at_most

MOST_MODELS: Final = 8
"""Maximum number of models that vote in one step."""
MOST_ROUTES: Final = 8192
"""Maximum number of labels that have a route in one step."""
MOST_SECONDS: Final = 3600.0


class Vote(StrEnum):
    """Rule by which the answers of several models become one."""

    MEAN = "mean"
    """The label with the highest mean of the models' scores."""
    MAJORITY = "majority"
    """The label that more than half of the models answer."""


class Step(Part):
    """Question to one or more models, or to the detector of languages, and where to go with the answer."""

    model_config = ConfigDict(allow_inf_nan=False)

    ask: tuple[str, ...] = Field(default=(), max_length=MOST_MODELS)
    """Models that are asked, each as a caller writes it: an id, or a name with or without a version or label."""
    detect: Literal["language"] | None = None
    """Property of the document that is detected instead of asking a model."""
    vote: Vote | None = None
    route: Annotated[Mapping[str, str], at_most(MOST_ROUTES)] = Field(default_factory=dict)
    """Step or model that comes next, by label; empty: the step's answer is the answer."""
    otherwise: str | None = None
    """Step or model that comes next where the step falls back, has no route for the label, fails or takes too long."""
    within: float | None = Field(default=None, gt=0.0, le=MOST_SECONDS, strict=True)
    """Time in which the step has to answer, in seconds; ``None``: the caller's deadline alone counts."""

    @field_validator("ask", mode="before")
    @classmethod
    def _one_or_more(cls, value: object) -> object:
        if isinstance(value, list) and len(value) > MOST_MODELS:
            raise ValueError(f"has {len(value)} models; at most {MOST_MODELS} may vote")
        if not isinstance(value, str | list | tuple) or not all(isinstance(model, str) for model in value):
            raise ValueError("must be a model id, or a list of model ids")
        return (value,) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _one_question(self) -> Self:
        if bool(self.ask) == (self.detect is not None):
            raise ValueError('must have either "ask" or "detect"')
        if len(self.ask) > 1 and self.vote is None:
            raise ValueError('asks several models, and needs "vote": "mean" or "majority"')
        if len(self.ask) < 2 and self.vote is not None:
            raise ValueError('has "vote", and must ask several models')
        if len(set(self.ask)) < len(self.ask):
            raise ValueError("asks one model twice")
        if self.detect is not None and not self.route:
            raise ValueError('detects a language, and needs "route"')
        if self.detect is not None and self.within is not None:
            raise ValueError('detects a language, which takes no time; leave out "within"')
        return self

    @property
    def targets(self) -> tuple[str, ...]:
        """Steps and models that may come next, each once: those of the routes, then ``otherwise``."""
        others = () if self.otherwise is None else (self.otherwise,)
        return tuple(dict.fromkeys((*self.route.values(), *others)))
