"""Who makes a call, and what they may do with which models."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from serving.call.counters import AccessCounters
from serving.call.limits import Limits
from serving.domain.errors import PermissionDenied
from serving.domain.model_id import VERSION_MARK

ALL_MODELS: Final = "*"
"""At the end of a pattern: any rest of a name."""


class Right(enum.StrEnum):
    """What may be allowed."""

    # Texts, because those are found in sets ten times as fast as plain members of an enum.

    PREDICT = "predict"
    """Have documents classified, and see what models there are."""
    EXPLAIN = "explain"
    """Have answers explained."""
    MANAGE = "manage"
    """Load, unload, release and delete models, and read what services count."""
    DELEGATE = "delegate"
    """Ask in the name of others: what a frontend does at a predictor."""


Asked: TypeAlias = Right | tuple[Right, ...]
"""What a method asks of its callers: a right, or any one of several."""

OPEN: Final[Asked] = ()
"""What probes ask: nothing, not even who they are."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Somebody who calls."""

    name: str
    rights: frozenset[Right]
    models: tuple[str, ...]
    """Names of models, each of which may end with ``*`` for any rest."""
    limits: Limits | None = None
    """How much they may ask; ``None``: what the settings of the service say."""
    counters: AccessCounters = field(default_factory=AccessCounters, repr=False, compare=False)
    """Where it is counted what they were denied."""
    _names: frozenset[str] = field(init=False, repr=False, compare=False)
    _beginnings: tuple[str, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        # Each call asks: so the patterns are sorted once.
        names = frozenset(pattern for pattern in self.models if not pattern.endswith(ALL_MODELS))
        beginnings = tuple(pattern[:-1] for pattern in self.models if pattern.endswith(ALL_MODELS))
        object.__setattr__(self, "_names", names)
        object.__setattr__(self, "_beginnings", beginnings)

    def check_right(self, right: Right) -> None:
        """Return if the right is theirs, for whichever models.

        Raises:
            PermissionDenied: it is not.
        """
        if right not in self.rights:
            self.counters.denied += 1
            raise PermissionDenied(f"the caller has no right to {right.value}; ask the operator for it")

    def check(self, right: Right, model_id: str) -> None:
        """Return if they may do this with the model.

        Raises:
            PermissionDenied: they may not; told alike whether or not there is such a model.
        """
        # Once more together, because every call comes here.
        if right not in self.rights or not self.may_use(model_id):
            self.check_right(right)
            self.check_model(model_id)

    def check_model(self, model_id: str) -> None:
        """Return if the model, in any version, is one of theirs.

        Raises:
            PermissionDenied: it is not; told alike whether or not there is such a model.
        """
        if not self.may_use(model_id):
            self.counters.denied += 1
            raise PermissionDenied("the caller may not use this model; ask the operator for it")

    def may_use(self, model_id: str) -> bool:
        """Return whether the model, in any version, is one of theirs."""
        name, _, _ = model_id.partition(VERSION_MARK)
        return name in self._names or name.startswith(self._beginnings)


ANYBODY: Final = Identity("", frozenset(Right), (ALL_MODELS,))
"""Every caller of a service where no access is configured: they may do everything."""

NOBODY: Final = Identity("", frozenset(), ())
"""Who calls what is open to all: they may do nothing else."""
