"""A direct interpretation of a pipeline's definition: the judge of the engine's answers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any, NamedTuple


class Said(NamedTuple):
    """Answer of a model to a document: a label, with the scores of all labels; or an error, or nothing in time."""

    label: str = ""
    score: float = 0.0
    scores: tuple[tuple[str, float], ...] = ()
    fallen_from: str = ""
    """The best label, where the model fell back."""
    error: str = ""
    """Name of a status; ``late``: the model never answers."""


class Ended(NamedTuple):
    """Answer of a pipeline."""

    label: str
    """Label, or the status."""
    score: float
    path: tuple[tuple[str, str], ...]
    """Each step with the reason that it went on."""


GOES_ON = {"UNAVAILABLE", "RESOURCE_EXHAUSTED", "NOT_FOUND", "FAILED_PRECONDITION"}


def interpreted(definition: Mapping[str, Any], said: Mapping[str, Said]) -> Ended:
    """Return what the pipeline answers where each model says what ``said`` has."""
    steps, name, path = definition["Steps"], definition["Start"], []
    while True:
        step = steps.get(name, {"ask": name})
        asked = [step["ask"]] if isinstance(step["ask"], str) else step["ask"]
        outcome, reason = _of_step(step, [said[model] for model in asked])
        otherwise = step.get("otherwise")
        if outcome.error:
            goes_on = otherwise is not None and (reason == "late" or outcome.error in GOES_ON)
            path.append((name, reason))
            if not goes_on:
                status = "FAILED_PRECONDITION" if outcome.error == "NOT_FOUND" else outcome.error
                return Ended("DEADLINE_EXCEEDED" if reason == "late" else status, 0.0, tuple(path))
            name = otherwise
        elif outcome.fallen_from and otherwise is not None:
            path.append((name, "fell back"))
            name = otherwise
        elif not step.get("route") or (outcome.fallen_from and outcome.label not in step["route"]):
            path.append((name, "answered"))
            return Ended(outcome.label, outcome.score, tuple(path))
        elif outcome.label in step["route"]:
            path.append((name, "routed"))
            name = step["route"][outcome.label]
        else:
            path.append((name, "no route"))
            if otherwise is None:
                return Ended("FAILED_PRECONDITION", 0.0, tuple(path))
            name = otherwise


def _of_step(step: Mapping[str, Any], answers: list[Said]) -> tuple[Said, str]:
    failed = next((answer for answer in answers if answer.error and answer.error != "late"), None)
    if failed is not None:
        return failed, "failed"
    if any(answer.error for answer in answers):
        return Said(error="late"), "late"
    if "vote" not in step:
        return answers[0], ""
    return (_mean(answers) if step["vote"] == "mean" else _majority(answers)), ""


def _mean(answers: list[Said]) -> Said:
    fallen = [answer for answer in answers if answer.fallen_from]
    falls_back = len(fallen) * 2 > len(answers)
    voters = fallen if falls_back else answers
    sums: dict[str, float] = defaultdict(float)
    for answer in voters:
        for label, score in answer.scores:
            sums[label] += score
    label = max(sums, key=lambda each: sums[each])
    if falls_back:
        return Said(fallen[0].label, sums[fallen[0].label] / len(voters), fallen_from=label)
    return Said(label, sums[label] / len(voters))


def _majority(answers: list[Said]) -> Said:
    standing = [answer for answer in answers if not answer.fallen_from]
    fallen = [answer for answer in answers if answer.fallen_from]
    for label in dict.fromkeys(answer.label for answer in standing):
        scores = [answer.score for answer in standing if answer.label == label]
        if len(scores) * 2 > len(answers):
            return Said(label, sum(scores) / len(scores))
    label = fallen[0].label if fallen else "oos"
    return Said(label, sum(answer.label == label for answer in answers) / len(answers), fallen_from="?")
