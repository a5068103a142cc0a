from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from serving.domain.errors import ModelNotFound, ServingError
from serving.domain.manifest import Manifest
from serving.domain.model_id import ModelId
from serving.domain.pipeline_checks import Version, faults_of
from serving.domain.pipelines.pipeline import Pipeline

GONE = ModelNotFound("no model has this runId")


def model(*labels: str, **keys: Any) -> dict[str, Any]:
    return {
        "Algorithm": "intent-classification",
        "classes": dict(zip(map(str, range(99)), labels, strict=False)),
        **keys,
    }


def pipeline(**steps: Any) -> dict[str, Any]:
    return {"Algorithm": "pipeline", "Start": next(iter(steps)), "Steps": steps}


def versions(**models: Mapping[str, Any]) -> dict[str, Sequence[Version] | ServingError]:
    """Return models that each have one version of their own id."""
    return {name: [Version(ModelId(name), Manifest.model_validate(dict(keys)))] for name, keys in models.items()}


def faults(
    definition: Mapping[str, Any], asked: Mapping[str, Sequence[Version] | ServingError], model_id: str = "p"
) -> list[str]:
    return faults_of(ModelId(model_id), Pipeline.parse(definition), asked)


ROUTER = pipeline(a={"ask": "r", "route": {"bank": "b", "travel": "t"}})
LEAVES = {"b": model("x"), "t": model("y")}


def test_a_right_pipeline_has_no_fault() -> None:
    assert faults(ROUTER, versions(r=model("bank", "travel"), **LEAVES)) == []


def test_a_label_without_a_route_is_told_unless_there_is_an_otherwise() -> None:
    asked = versions(r=model("bank", "travel", "food"), **LEAVES)
    assert faults(ROUTER, asked) == ['step "a" has no route for "food", and no "otherwise"']
    with_otherwise = pipeline(a={"ask": "r", "route": {"bank": "b", "travel": "t"}, "otherwise": "b"})
    assert faults(with_otherwise, asked) == []


def test_the_fallback_label_needs_a_route_where_the_model_has_a_threshold() -> None:
    asked = versions(r=model("bank", "travel", Confidence={"threshold": 0.5}), **LEAVES)
    assert faults(ROUTER, asked) == ['step "a" has no route for "oos", and no "otherwise"']


def test_a_route_for_a_label_that_the_model_lacks_is_told() -> None:
    assert faults(ROUTER, versions(r=model("bank"), **LEAVES)) == [
        'step "a" has a route for "travel", but r has no label of this name'
    ]


def test_a_model_whose_labels_are_not_known_is_not_judged_by_them() -> None:
    assert faults(ROUTER, versions(r={"Algorithm": "elsewhere"}, **LEAVES)) == []


def test_each_live_version_of_a_routed_name_counts() -> None:
    stable, canary = (
        Version(ModelId(f"r@{number}"), Manifest.model_validate(model(*labels)))
        for number, labels in enumerate([("bank", "travel"), ("bank", "travel", "food")])
    )
    asked = {**versions(**LEAVES), "r": [stable, canary]}
    assert faults(ROUTER, asked) == ['step "a" has no route for "food", and no "otherwise"']


def test_a_model_that_does_not_exist_is_told_with_its_step() -> None:
    asked = {**versions(r=model("bank", "travel"), b=model("x")), "t": GONE}
    assert faults(ROUTER, asked) == [f'step "t" asks t: {GONE}']


def test_languages_that_no_detector_knows_are_told_and_every_detection_needs_an_otherwise() -> None:
    definition = pipeline(a={"detect": "language", "route": {"de": "b", "klingon": "t"}})
    told = faults(definition, versions(**LEAVES))
    assert told[0] == (
        'step "a" has a route for "klingon", but the detector knows no language of this name;'
        " write a code of two or three letters, such as de"
    )
    assert 'step "a" has no route for "af"' in told[1]


@pytest.mark.parametrize(
    ("label", "advice"),
    [
        ("zh-CN", 'write "zh", which has all its regions and scripts'),
        ("pt_BR", 'write "pt", which has all its regions and scripts'),
        ("DE", 'write "de"'),
        ("und", 'texts whose language is not certain go "otherwise"'),
    ],
)
def test_what_to_write_for_a_language_is_told(label: str, advice: str) -> None:
    definition = pipeline(a={"detect": "language", "route": {label: "b"}, "otherwise": "t"})
    (told,) = faults(definition, versions(**LEAVES))
    assert told.endswith(f"of this name; {advice}")


def test_misspelt_labels_and_steps_are_told_with_what_may_be_meant() -> None:
    definition = pipeline(a={"ask": "r", "route": {"bnak": "large"}, "otherwise": "larg"}, large={"ask": "b"})
    told = faults(definition, {**versions(r=model("bank"), **LEAVES), "larg": GONE})
    assert told == [
        'step "a" has a route for "bnak", but r has no label of this name; did you mean "bank"?',
        f'step "larg" asks larg: {GONE}; did you mean the step "large"?',
    ]


def test_thousands_of_faults_have_hints_for_some() -> None:
    routes = {f"bank-{number}": f"gone-{number}" for number in range(8000)}
    definition = pipeline(a={"ask": "r", "route": routes, "otherwise": "b"})
    asked = {**versions(r=model("bank", "travel"), **LEAVES), **dict.fromkeys(routes.values(), GONE)}
    told = faults(definition, asked)
    assert len(told) == 16_000
    assert 0 < sum("did you mean" in fault for fault in told) <= 16


def test_the_faults_of_a_pipeline_that_is_asked_are_told_once_with_its_name() -> None:
    inner = pipeline(v={"ask": "gone", "otherwise": "w"}, w={"ask": "m", "route": {"z": "m"}, "otherwise": "m"})
    outer = pipeline(a={"ask": "q"})
    asked = {**versions(m=model("x"), q=inner), "gone": GONE}
    assert faults(outer, asked) == [
        f'the pipeline q: step "v" asks gone: {GONE}',
        'the pipeline q: step "w" has a route for "z", but m has no label of this name',
    ]


@pytest.mark.parametrize(("asked_as", "answering"), [("p", "p@2"), ("p@stable", "p@2"), ("p@1", "p@1")])
def test_a_pipeline_that_a_release_may_lead_to_itself_is_told(asked_as: str, answering: str) -> None:
    definition = pipeline(a={"ask": "m", "otherwise": asked_as})
    asked = {**versions(m=model("x")), asked_as: [Version(ModelId(answering), Manifest.model_validate(model("x")))]}
    (told,) = faults(definition, asked, "p@1")
    assert "leads back to the pipeline itself" in told


@pytest.mark.parametrize("model_id", ["p", "p@1"])
def test_a_pipeline_that_asks_itself_is_told_before_it_exists(model_id: str) -> None:
    definition = pipeline(a={"ask": "m", "otherwise": model_id})
    assert faults(definition, {**versions(m=model("x")), model_id: GONE}, model_id) == [
        f'step "{model_id}" leads back to the pipeline itself: {model_id} -> {model_id}'
    ]
    other = pipeline(a={"ask": "m", "otherwise": "p@2"})
    assert faults(other, {**versions(m=model("x")), "p@2": GONE}, model_id) == [f'step "p@2" asks p@2: {GONE}']


def test_another_version_of_its_own_name_may_be_asked() -> None:
    definition = pipeline(a={"ask": "m", "otherwise": "p@2"})
    assert faults(definition, versions(**{"m": model("x"), "p@2": model("x")}), "p@1") == []


def test_a_circle_through_another_pipeline_is_told() -> None:
    asked = versions(
        m=model("x"), q=pipeline(a={"ask": "m", "otherwise": "p"}), p=pipeline(a={"ask": "m", "otherwise": "q"})
    )
    told = faults(pipeline(first={"ask": "m", "otherwise": "q"}), asked)
    assert told == ['step "q" leads back to the pipeline itself: p -> q -> p']


def test_a_circle_among_other_pipelines_is_told_and_ends_the_check() -> None:
    asked = versions(m=model("x"), q=pipeline(a={"ask": "s"}), s=pipeline(a={"ask": "q"}))
    (told,) = faults(pipeline(first={"ask": "q"}), asked)
    assert told.startswith('step "first" leads back')


def test_a_circle_behind_a_step_with_routes_is_told_and_ends_the_check() -> None:
    asked = versions(m=model("x"), q=pipeline(a={"ask": "s"}), s=pipeline(a={"ask": "q"}))
    (told,) = faults(pipeline(first={"ask": "q", "route": {"x": "m"}, "otherwise": "m"}), asked)[:1]
    assert told == 'step "first" leads back to the pipeline itself: p -> q -> s -> q'


def test_pipelines_that_are_asked_by_many_ways_are_looked_at_once() -> None:
    layers = 40
    lattice: dict[str, dict[str, Any]] = {f"{layers}-{place}": model("x") for place in "ab"}
    for layer in range(layers):
        inner = pipeline(v={"ask": [f"{layer + 1}-a", f"{layer + 1}-b"], "vote": "mean"})
        lattice |= {f"{layer}-{place}": inner for place in "ab"}
    definition = pipeline(first={"ask": "0-a", "route": {"x": "m", "y": "m"}, "otherwise": "m"})
    # The ways from the first layer to the last are as many as 2 to the power of 40.
    deep, label = faults(definition, versions(m=model("x"), **lattice))
    assert deep.startswith('step "first" asks 0-a, a pipeline that asks further pipelines')
    assert label == 'step "first" has a route for "y", but 0-a has no label of this name'


def test_the_models_that_a_document_is_sent_to_are_counted_through_pipelines() -> None:
    leaves = [f"m{number}" for number in range(8)]
    inner = pipeline(v={"ask": leaves, "vote": "mean"})
    asked = versions(**dict.fromkeys(leaves, model("x")), **{f"p{number}": inner for number in range(8)})
    seven = pipeline(v={"ask": [f"p{number}" for number in range(7)], "vote": "mean"})
    eight = pipeline(v={"ask": [f"p{number}" for number in range(8)], "vote": "mean"})
    assert faults(seven, asked, "outer") == []
    (told,) = faults(eight, asked, "outer")
    assert told.startswith('step "v" begins a way on which a document is sent to 72 models')


def test_the_depth_counts_the_steps_of_pipelines_that_are_asked() -> None:
    inner = pipeline(a={"ask": "m", "otherwise": "b"}, b={"ask": "m", "otherwise": "c"}, c={"ask": "m"})
    asked = versions(m=model("x"), q=inner)
    assert faults(pipeline(first={"ask": "m", "otherwise": "q"}), asked) == []
    (told,) = faults(pipeline(first={"ask": "m", "otherwise": "second"}, second={"ask": "m", "otherwise": "q"}), asked)
    assert told.startswith('step "first" begins a way of 5 steps')


VOTES = {"a": model("x", "y"), "b": model("x", "y"), "m": model("z")}


def test_models_that_disagree_have_the_fallback_label_for_which_a_majority_needs_a_route() -> None:
    asked = versions(**VOTES)
    voting = {"ask": ["a", "b"], "vote": "majority", "route": {"x": "m", "y": "m"}}
    assert faults(pipeline(v=voting), asked) == ['step "v" has no route for "oos", and no "otherwise"']
    assert faults(pipeline(v={**voting, "otherwise": "m"}), asked) == []
    assert faults(pipeline(v={**voting, "route": {"x": "m", "y": "m", "oos": "m"}}), asked) == []
    assert faults(pipeline(v={**voting, "vote": "mean"}), asked) == []


def test_a_pipeline_that_answers_by_a_majority_may_answer_the_fallback_label() -> None:
    inner = pipeline(v={"ask": ["a", "b"], "vote": "majority"})
    asked = versions(q=inner, **VOTES)
    assert faults(pipeline(r={"ask": "q", "route": {"x": "m", "y": "m"}}), asked) == [
        'step "r" has no route for "oos", and no "otherwise"'
    ]


def test_every_fault_is_told_with_its_step() -> None:
    definition = pipeline(
        a={"ask": "r", "route": {"bank": "b", "food": "c"}}, b={"ask": "gone", "otherwise": "q"}, c={"ask": "t"}
    )
    asked = versions(r=model("bank", "travel"), t=model("y"), q=pipeline(a={"ask": "p"}), p=pipeline(a={"ask": "t"}))
    told = faults(definition, {**asked, "gone": GONE})
    for fault in (
        f'step "b" asks gone: {GONE}',
        'step "q" leads back to the pipeline itself: p -> q -> p',
        'step "a" has a route for "food", but r has no label of this name',
        'step "a" has no route for "travel", and no "otherwise"',
    ):
        assert fault in told
    assert len(told) == 4


def test_a_label_of_control_characters_is_told_in_printable_text() -> None:
    definition = pipeline(a={"ask": "r", "route": {"x": "b", "\x1b[2J\n" + "y" * 10_000: "b"}})
    told = faults(definition, versions(r=model("x", "z\x07"), **LEAVES))
    assert len(told) == 2
    assert all(text.isprintable() and len(text) < 500 and text.startswith('step "a" ') for text in told)


def test_the_labels_of_a_pipeline_are_those_of_the_steps_that_answer() -> None:
    asked = versions(p=ROUTER, r=model("bank", "travel"), **LEAVES)
    assert faults(pipeline(a={"ask": "p", "route": {"x": "b", "z": "b"}}), asked, "outer") == [
        'step "a" has a route for "z", but p has no label of this name',
        'step "a" has no route for "y", and no "otherwise"',
    ]


def test_a_vote_by_majority_may_find_none() -> None:
    asked = versions(r=model("bank"), s=model("bank"), b=model("x"))
    voting = pipeline(a={"ask": ["r", "s"], "vote": "majority", "route": {"bank": "b"}})
    assert faults(voting, asked) == ['step "a" has no route for "oos", and no "otherwise"']


def test_so_many_pipelines_may_ask_one_another() -> None:
    chain = {f"p{number}": pipeline(a={"ask": f"p{number + 1}"}) for number in range(4)}
    asked = versions(**chain, p4=model("x"))
    assert faults(chain["p0"], asked, "p0") == []
    (fault,) = faults(pipeline(a={"ask": "p0"}), asked, "outer")
    assert fault.startswith('step "a" asks p0, a pipeline that asks further pipelines; at most 4')


def test_pipelines_that_ask_one_another_in_many_ways_are_checked_at_once() -> None:
    many = {
        f"p{level}-{number}": pipeline(
            a={"ask": [f"p{level + 1}-{each}" for each in range(8)], "vote": "mean", "route": {"x": "b"}}
        )
        for level in range(30)
        for number in range(8)
    }
    (fault, *_) = faults(
        many["p0-0"], {**versions(**many, b=model("x")), **{f"p30-{n}": GONE for n in range(8)}}, "p0-0"
    )
    assert fault.startswith('step "a" asks p1-0, a pipeline that asks further pipelines')


def test_labels_that_lead_in_a_circle_are_not_looked_for_without_an_end() -> None:
    asked = versions(p=pipeline(a={"ask": "q"}), q=pipeline(a={"ask": "p"}), b=model("x"))
    (fault,) = faults(pipeline(a={"ask": "p", "route": {"x": "b"}}), asked, "outer")
    assert fault == 'step "a" leads back to the pipeline itself: outer -> p -> q -> p'
