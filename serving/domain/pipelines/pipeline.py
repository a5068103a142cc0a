"""Definition of a pipeline, and the checks that need no other model."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from enum import StrEnum
from graphlib import CycleError, TopologicalSorter
from typing import Any, Final, NamedTuple, Self

from pydantic import ValidationError

from serving.domain.errors import InvalidModelId
from serving.domain.model_id import parse_model_id, parse_model_name
from serving.domain.pipelines.step import MOST_SECONDS, Step

ALGORITHM: Final = "pipeline"
"""``Algorithm`` of a pipeline's manifest."""
MOST_STEPS: Final = 64
"""Maximum number of steps."""
MOST_DEPTH: Final = 4
"""Maximum number of steps that a document passes through, those of the pipelines that are asked included."""
MOST_QUESTIONS: Final = 64
"""Maximum number of models that one document is sent to, the pipelines that are asked and their models included."""
_LONGEST_NAME_SHOWN: Final = 64
_MOST_FAULTS_SHOWN: Final = 32
# The metadata of a call, in which its status is, may have 8 KiB.
_LONGEST_MESSAGE: Final = 4096
_MOST_KEYS_COMPARED: Final = 64
_KEYS: Final = {"Start": 0.6, "Steps": 0.6, "Rights": 0.9}
"""Keys of a definition, and the likeness of a misspelt one: higher for Rights, which is optional and like Weights."""
_WANTED: Final = {
    "ask": "must be a model id, or a list of model ids",
    "detect": 'must be "language"',
    "vote": 'must be "mean" or "majority"',
    "route": "must be an object from label to step or model, both in quotes",
    "otherwise": "must be the name of a step or a model id, in quotes",
    "within": f"must be a number of seconds, above 0 and at most {MOST_SECONDS:g}",
}
"""Value that each key of a step must have."""


class Rights(StrEnum):
    """Models that a caller of a pipeline must be allowed to ask."""

    MODELS = "models"
    """The pipeline and each model that is asked."""
    PIPELINE = "pipeline"
    """The pipeline alone."""


class InvalidPipeline(ValueError):
    """The definition is wrong.

    Args:
        faults: every fault, each with the name of its step.
    """

    def __init__(self, faults: list[str]) -> None:
        self.faults = list(dict.fromkeys(faults))
        super().__init__(listed(self.faults))


class Pipeline(NamedTuple):
    """A definition without faults of its own."""

    start: str
    """Name of the first step."""
    steps: Mapping[str, Step]
    """Steps by name, in an order in which each comes before those that it leads to.

    A model that is only named as a target is a step of its own, with the model's id as its name."""
    rights: Rights

    @property
    def models(self) -> tuple[str, ...]:
        """Models that the steps ask, each once, as the definition writes them."""
        return tuple(dict.fromkeys(model for step in self.steps.values() for model in step.ask))

    @property
    def detects(self) -> bool:
        """Whether a step detects the language."""
        return any(step.detect is not None for step in self.steps.values())

    @property
    def depth(self) -> int:
        """Number of steps on the longest way through the pipeline, other pipelines not counted."""
        return self.depth_by({})

    def depth_by(self, depths: Mapping[str, int]) -> int:
        """Return the number of steps on the longest way; a step that asks a pipeline counts as many as that one has.

        Args:
            depths: depth of each pipeline that is asked, by the model id that the definition writes.
        """
        return self._longest(lambda step: max((depths.get(model, 1) for model in step.ask), default=1))

    def questions_by(self, questions: Mapping[str, int]) -> int:
        """Return the maximum number of models that one document is sent to, those of pipelines that are asked included.

        Args:
            questions: this number, of each pipeline that is asked, by the model id that the definition writes.
        """
        return self._longest(lambda step: sum(questions.get(model, 1) for model in step.ask))

    def _longest(self, length: Callable[[Step], int]) -> int:
        """Return the length of the longest way from the first step, given that of each step."""
        longest: dict[str, int] = {}
        for name in reversed(tuple(self.steps)):
            step = self.steps[name]
            longest[name] = length(step) + max((longest[target] for target in step.targets), default=0)
        return longest[self.start]

    @classmethod
    def parse(cls, document: Mapping[str, Any]) -> Self:
        """Return the pipeline that the keys ``Start``, ``Steps`` and ``Rights`` of a manifest define.

        Raises:
            InvalidPipeline: the definition is wrong; its message names every fault.
        """
        written = document.get("Steps")
        if not isinstance(written, dict) or not written:
            wanted = 'Steps must be an object of steps by name, such as {"first": {"ask": "a-model"}}'
            raise InvalidPipeline([*_misspelt(document), wanted])
        if len(written) > MOST_STEPS:
            raise InvalidPipeline([f"Steps has {len(written)} steps; at most {MOST_STEPS} are allowed"])
        faults = list(_misspelt(document))
        rights = document.get("Rights", Rights.MODELS)
        if rights not in tuple(Rights):
            faults.append(f'Rights must be "{Rights.MODELS}" or "{Rights.PIPELINE}"')
        steps = dict(_steps(written, faults))
        start = document.get("Start")
        if not isinstance(start, str) or start not in written:
            faults.append("Start must name the first step, which is one of Steps")
        for name, step in steps.items():
            faults.extend(_faults_of_names(name, step, written))
        if faults:
            raise InvalidPipeline(faults)
        assert isinstance(start, str)  # noqa: S101 - checked above
        ordered = _in_order(start, steps)
        pipeline = cls(start, ordered, Rights(rights))
        if pipeline.depth > MOST_DEPTH:
            raise InvalidPipeline(
                [f"step {shown(start)} begins a way of {pipeline.depth} steps; at most {MOST_DEPTH} are allowed"]
            )
        return pipeline


def listed(faults: Sequence[str]) -> str:
    """Return the faults as a message shows them: all of them, as far as they are read and not too long for a status."""
    kept = list(faults[:_MOST_FAULTS_SHOWN])
    while len(kept) > 1 and sum(map(len, kept)) > _LONGEST_MESSAGE:
        kept.pop()
    more = len(faults) - len(kept)
    return "; ".join(kept) + (f"; and {more} more" if more else "")


def shown(text: str) -> str:
    """Return text of a manifest as messages show it: in quotes, printable, and not too long."""
    return json.dumps(text if len(text) <= _LONGEST_NAME_SHOWN else f"{text[:_LONGEST_NAME_SHOWN]}...")


def _steps(written: Mapping[str, object], faults: list[str]) -> Iterator[tuple[str, Step]]:
    """Yield each step that is well formed, and add a fault for each other one."""
    for name, value in written.items():
        try:
            parse_model_name(name)
            yield name, Step.model_validate(value)
        except InvalidModelId:
            faults.append(f"step {shown(name)}: its name must be a name as models have: letters, digits, '.', '_', '-'")
        except ValidationError as error:
            faults.extend(f"step {shown(name)}{_fault(each)}" for each in error.errors(include_url=False))


def _misspelt(document: Mapping[str, Any]) -> Iterator[str]:
    """Yield a fault for each key that is missing where a similar one is written."""
    if len(document) > _MOST_KEYS_COMPARED:
        return
    for key, likeness in _KEYS.items():
        written = {each.lower(): each for each in document if each != key}
        for close in get_close_matches(key.lower(), written, 1, likeness) if key not in document else ():
            yield f"{shown(written[close])} has no meaning; write {shown(key)}"


def _fault(fault: Any) -> str:
    key = next((str(part) for part in fault["loc"]), "")
    said = fault["msg"].removeprefix("Value error, ")
    is_told_by_step = fault["type"] == "value_error"
    if not key:
        return f" {said}" if is_told_by_step else ' must be an object such as {"ask": "a-model"}'
    if fault["type"] == "extra_forbidden":
        close = get_close_matches(key.lower(), Step.model_fields, 1)
        advice = f"write {shown(close[0])}" if close else f"a step has {', '.join(Step.model_fields)}"
        return f" has {shown(key)}, which no step has; {advice}"
    return f": {key}: {said if is_told_by_step else _WANTED[key]}"


def _faults_of_names(name: str, step: Step, written: Mapping[str, object]) -> Iterator[str]:
    """Yield a fault for each name in a step that is neither a step nor a model id."""
    for model in step.ask:
        if not _is_model_id(model):
            yield f"step {shown(name)} asks {shown(model)}, which is no model id"
    for target in step.targets:
        if target == name:
            yield f"step {shown(name)} leads to itself"
        elif target not in written and not _is_model_id(target):
            yield f"step {shown(name)} leads to {shown(target)}, which is neither a step nor a model id"


def _is_model_id(text: str) -> bool:
    try:
        parse_model_id(text)
    except InvalidModelId:
        return False
    return True


def _in_order(start: str, steps: Mapping[str, Step]) -> dict[str, Step]:
    """Return the steps, and a step for each model that is a target, each before those that it leads to.

    Otherwise they are in the order of the routes.

    Raises:
        InvalidPipeline: steps form a cycle, or nothing leads to a step.
    """
    every = dict(steps)
    for step in steps.values():
        for target in step.targets:
            every.setdefault(target, Step(ask=(target,)))
    led_to = {target for step in every.values() for target in step.targets}
    faults = [f"nothing leads to step {shown(name)}" for name in steps if name not in led_to and name != start]
    try:
        TopologicalSorter({name: step.targets for name, step in every.items()}).prepare()
    except CycleError as error:
        # The library lists each step behind the one that it leads to.
        way = " -> ".join(map(shown, reversed(error.args[1])))
        raise InvalidPipeline([*faults, f"steps lead back to step {shown(error.args[1][-1])}: {way}"]) from error
    if faults:
        raise InvalidPipeline(faults)
    last_first: dict[str, Step] = {}

    def place(name: str) -> None:
        if name not in last_first:
            for target in reversed(every[name].targets):
                place(target)
            last_first[name] = every[name]

    place(start)
    return dict(reversed(last_first.items()))
