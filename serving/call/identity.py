"""Identity of a caller, with its rights and the models it may use."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from serving.call.counters import AccessCounters
from serving.call.limits import NO_LIMITS, Limits
from serving.domain.errors import PermissionDenied
from serving.domain.model_id import VERSION_MARK
from serving.domain.name_patterns import ANY_SUFFIX, NamePatterns

ALL_MODELS: Final = ANY_SUFFIX
"""Pattern of every model."""


class Right(enum.StrEnum):
    """A right that callers can have."""

    # Strings, because sets find them ten times as fast as plain members of an enum.

    PREDICT = "predict"
    """Classify documents, and see which models exist."""
    EXPLAIN = "explain"
    """Request explanations of answers."""
    MANAGE = "manage"
    """Load, unload, release and delete models, and read the counters of services."""
    DELEGATE = "delegate"
    """Make calls on behalf of others, as a frontend does at a predictor."""


Requirement: TypeAlias = Right | tuple[Right, ...]
"""Right that a method requires of its callers, or several of which any one is enough."""

OPEN: Final[Requirement] = ()
"""Requirement of probes: no right and no credential."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Identity of a caller."""

    name: str
    rights: frozenset[Right]
    models: tuple[str, ...]
    """Names of models that the caller may use; each may end with ``*``, which matches any suffix."""
    limits: Limits | None = None
    """Limits of the caller; ``None``: those in the settings of the service."""
    is_named_to_predictors: bool = True
    """Whether predictors check the caller's rights, or those of the frontend that asks on the caller's behalf."""
    counters: AccessCounters = field(default_factory=AccessCounters, repr=False, compare=False)
    """Counters of denied calls."""
    _patterns: NamePatterns = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_patterns", NamePatterns(self.models))

    @property
    def caller(self) -> str:
        """Name of the caller as a frontend tells it to a predictor; empty if the frontend's own rights count."""
        return self.name if self.is_named_to_predictors else ""

    def trusted_with(self, models: Iterable[str]) -> Identity:
        """Return the same caller, who may also ask ``models``, on the word of a pipeline that the caller may ask."""
        rights = self.rights & {Right.PREDICT, Right.EXPLAIN}
        names = (*self.models, *(model.partition(VERSION_MARK)[0] for model in models))
        return Identity(self.name, rights, names, self.limits, is_named_to_predictors=False, counters=self.counters)

    def testing(self) -> Identity:
        """Return the same caller, who may ask the models it may use, without limits: for the test of a new version."""
        rights = self.rights | {Right.PREDICT}
        return Identity(self.name, rights, self.models, NO_LIMITS, is_named_to_predictors=False, counters=self.counters)

    def check_right(self, right: Right) -> None:
        """Check that the caller has the right, whatever the model.

        Raises:
            PermissionDenied: the caller does not have the right.
        """
        if right not in self.rights:
            self.counters.denied += 1
            raise PermissionDenied(f"the caller has no right to {right.value}; ask the operator for it")

    def check(self, right: Right, model_id: str) -> None:
        """Check that the caller may do this with the model.

        Raises:
            PermissionDenied: the caller may not; the error is the same whether or not the model exists.
        """
        # One condition for the common case, because every call passes here.
        if right not in self.rights or not self.may_use(model_id):
            self.check_right(right)
            self.check_model(model_id)

    def check_model(self, model_id: str) -> None:
        """Check that the caller may use the model, in any version.

        Raises:
            PermissionDenied: the caller may not; the error is the same whether or not the model exists.
        """
        if not self.may_use(model_id):
            self.counters.denied += 1
            raise PermissionDenied("the caller may not use this model; ask the operator for it")

    def may_use(self, model_id: str) -> bool:
        """Return whether the caller may use the model, in any version."""
        return self._patterns.match(model_id)


ANYBODY: Final = Identity("", frozenset(Right), (ALL_MODELS,))
"""Identity of every caller of a service without configured access; has all rights to all models."""

NOBODY: Final = Identity("", frozenset(), ())
"""Identity of the callers of methods that are open to all; has no rights."""
