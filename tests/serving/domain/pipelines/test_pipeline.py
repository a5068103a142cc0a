from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.domain.errors import InvalidManifest
from serving.domain.manifest import Manifest
from serving.domain.pipelines.pipeline import InvalidPipeline, Pipeline, Rights
from serving.domain.pipelines.step import Vote
from tests.serving.refusals import refused

ACME: dict[str, Any] = {
    "Start": "language",
    "Steps": {
        "language": {"detect": "language", "route": {"de": "acme-de"}, "otherwise": "domain"},
        "domain": {
            "ask": "acme-domains",
            "route": {"bank": "bank", "travel": "acme-travel@stable"},
            "otherwise": "large",
        },
        "bank": {"ask": ["bank-a", "bank-b"], "vote": "mean", "otherwise": "large"},
        "large": {"ask": "acme-large", "within": 0.3},
    },
}


def one(**step: Any) -> dict[str, Any]:
    return {"Start": "a", "Steps": {"a": step}}


def chain(length: int) -> dict[str, Any]:
    steps = {f"s{number}": {"ask": "m", "otherwise": f"s{number + 1}"} for number in range(length - 1)}
    return {"Start": "s0", "Steps": {**steps, f"s{length - 1}": {"ask": "m"}}}


def test_a_definition_is_read_with_every_model_that_it_leads_to() -> None:
    pipeline = Pipeline.parse(ACME)
    assert pipeline.models == ("acme-de", "acme-domains", "bank-a", "bank-b", "acme-travel@stable", "acme-large")
    assert pipeline.steps["bank"].vote is Vote.MEAN
    assert pipeline.steps["acme-de"].ask == ("acme-de",)
    assert pipeline.rights is Rights.MODELS
    assert pipeline.depth == 4


def test_each_step_comes_before_those_that_it_leads_to() -> None:
    pipeline = Pipeline.parse(ACME)
    order = list(pipeline.steps)
    assert order[0] == "language"
    for name, step in pipeline.steps.items():
        assert all(order.index(target) > order.index(name) for target in step.targets)


@pytest.mark.parametrize(
    ("definition", "told"),
    [
        ({}, "Steps must be an object"),
        ({"Start": "a", "Steps": []}, "Steps must be an object"),
        ({"Start": "a", "Steps": {}}, "Steps must be an object"),
        ({"Start": "b", "Steps": {"a": {"ask": "m"}}}, "Start must name the first step"),
        ({"Start": ["a"], "Steps": {"a": {"ask": "m"}}}, "Start must name the first step"),
        ({"Start": "m", "Steps": {"a": {"ask": "m"}}}, "Start must name the first step"),
        ({"Start": None, "Steps": {"a": {"ask": "m"}}}, "Start must name the first step"),
        ({"Steps": {"a": {"ask": "m"}}}, "Start must name the first step"),
        ({**one(ask="m"), "Rights": "all"}, 'Rights must be "models" or "pipeline"'),
        ({**one(ask="m"), "Rights": []}, 'Rights must be "models" or "pipeline"'),
        (one(), 'step "a" must have either "ask" or "detect"'),
        (one(ask="m", detect="language", route={"de": "n"}), 'step "a" must have either "ask" or "detect"'),
        (one(ask=[]), 'step "a" must have either "ask" or "detect"'),
        (one(ask=7), 'step "a": ask: must be a model id'),
        (one(ask=["m", "n"]), 'step "a" asks several models, and needs "vote"'),
        (one(ask="m", vote="mean"), 'step "a" has "vote", and must ask several models'),
        (one(ask=["m"], vote="majority"), 'step "a" has "vote", and must ask several models'),
        (one(detect="language", vote="mean", route={"de": "m"}), 'step "a" has "vote", and must ask several models'),
        (one(ask=["m", "m"], vote="mean"), 'step "a" asks one model twice'),
        (one(ask=["m", "n"], vote="best"), 'step "a": vote:'),
        (one(ask=[f"m{number}" for number in range(9)], vote="mean"), 'step "a": ask:'),
        (one(detect="language"), 'step "a" detects a language, and needs "route"'),
        (one(detect="mood", route={"de": "m"}), 'step "a": detect:'),
        (one(ask="m", within=0), 'step "a": within:'),
        (one(ask="m", within=-1), 'step "a": within:'),
        (one(ask="m", within=math.nan), 'step "a": within:'),
        (one(ask="m", within=math.inf), 'step "a": within:'),
        (one(ask="m", within=-math.inf), 'step "a": within:'),
        (one(ask="m", within="1"), 'step "a": within:'),
        (one(ask="m", within=1e9), 'step "a": within:'),
        (one(ask="m", when="score > 1"), 'step "a" has "when", which no step has'),
        (one(ask="m", **{f"key{number}": 1 for number in range(40)}), 'step "a" has 41 elements; at most 32 are read'),
        (one(ask="m", route={str(number): "m" for number in range(8193)}), 'step "a": route: has 8193 elements'),
        (one(ask="../m"), 'step "a" asks "../m", which is no model id'),
        (one(ask=["m", "a\nb"], vote="mean"), 'step "a" asks "a\\nb", which is no model id'),
        (one(ask="m@1@2"), 'step "a" asks "m@1@2", which is no model id'),
        (one(ask=""), 'step "a" asks "", which is no model id'),
        (one(ask="m", otherwise=""), 'step "a" leads to "", which is neither a step nor a model id'),
        (one(ask="m", otherwise="/etc"), 'step "a" leads to "/etc", which is neither a step nor a model id'),
        (one(ask="m", route={"l": "a\nb"}), 'step "a" leads to "a\\nb", which is neither'),
        (one(ask="m", otherwise="a"), 'step "a" leads to itself'),
        (one(ask="m", route={"l": "a"}), 'step "a" leads to itself'),
        ({"Start": "a", "Steps": {"a": "m"}}, 'step "a" must be an object'),
        ({"Start": "..", "Steps": {"..": {"ask": "m"}}}, 'step "..": its name must be a name'),
        ({"Start": "\x1b[2J", "Steps": {"\x1b[2J": {"ask": "m"}}}, 'step "\\u001b[2J": its name must be a name'),
        ({"Start": "a@1", "Steps": {"a@1": {"ask": "m"}}}, 'step "a@1": its name must be a name'),
        ({"Start": "a", "Steps": {"a": {"ask": "m"}, "": {"ask": "m"}}}, 'step "": its name must be a name'),
        ({"Start": "a", "Steps": {"a": {"ask": "m"}, "b": {"ask": "m"}}}, 'nothing leads to step "b"'),
        (
            {
                "Start": "a",
                "Steps": {
                    "a": {"ask": "m"},
                    "b": {"ask": "m", "otherwise": "c"},
                    "c": {"ask": "m", "otherwise": "b"},
                },
            },
            'steps lead back to step "b": "b" -> "c" -> "b"',
        ),
        (
            {
                "Start": "a",
                "Steps": {
                    "a": {"ask": "m", "otherwise": "b"},
                    "b": {"ask": "m", "otherwise": "c"},
                    "c": {"ask": "m", "route": {"l": "a"}},
                },
            },
            'steps lead back to step "a": "a" -> "b" -> "c" -> "a"',
        ),
        (chain(5), 'step "s0" begins a way of 5 steps; at most 4 are allowed'),
        (chain(10_000), "Steps has 10000 steps; at most 64 are allowed"),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else "",
)
def test_a_bad_definition_is_refused_with_the_name_of_its_step(definition: dict[str, Any], told: str) -> None:
    with pytest.raises(InvalidPipeline) as caught:
        Pipeline.parse(definition)
    assert told in str(caught.value)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 10_000


OF_EVERY_TYPE: Final = {
    "null": None,
    "true": True,
    "number": 7,
    "fraction": 0.5,
    "text": "text",
    "list": ["text"],
    "numbers": [7],
    "object": {"l": "m"},
    "object of numbers": {"l": 7},
}
RIGHT_TYPES: Final[Mapping[str, frozenset[str]]] = {
    "ask": frozenset({"text", "list"}),
    "detect": frozenset({"null"}),
    "vote": frozenset({"null"}),
    "route": frozenset({"object"}),
    "otherwise": frozenset({"null", "text"}),
    "within": frozenset({"null", "number", "fraction"}),
}


@pytest.mark.parametrize("type_", OF_EVERY_TYPE)
@pytest.mark.parametrize("key", RIGHT_TYPES)
def test_a_value_of_the_wrong_type_is_refused_with_its_step_and_key(key: str, type_: str) -> None:
    definition = one(**({"ask": "m"} | {key: OF_EVERY_TYPE[type_]}))
    if type_ in RIGHT_TYPES[key]:
        Pipeline.parse(definition)
        return
    with pytest.raises(InvalidPipeline) as caught:
        Pipeline.parse(definition)
    assert str(caught.value).startswith(f'step "a": {key}: ')


@pytest.mark.parametrize("type_", [name for name in OF_EVERY_TYPE if not name.startswith("object")])
def test_what_is_no_step_and_what_are_no_steps_are_refused(type_: str) -> None:
    with pytest.raises(InvalidPipeline, match='step "a" must be an object'):
        Pipeline.parse({"Start": "a", "Steps": {"a": OF_EVERY_TYPE[type_]}})
    with pytest.raises(InvalidPipeline, match="Steps must be an object"):
        Pipeline.parse({"Start": "a", "Steps": OF_EVERY_TYPE[type_]})


@pytest.mark.parametrize("text", ["NaN", "Infinity", "1e999", "-1", "0"])
def test_a_time_that_is_none_is_refused_in_the_text_of_a_manifest(text: str) -> None:
    written = json.dumps({"Algorithm": "pipeline", **one(ask="m", within="SECONDS")}).replace('"SECONDS"', text)
    with refused(InvalidManifest):
        Manifest.parse(written.encode())


def test_a_step_that_is_written_twice_is_refused() -> None:
    written = b'{"Algorithm": "pipeline", "Start": "a", "Steps": {"a": {"ask": "m"}, "a": {"ask": "n"}}}'
    with refused(InvalidManifest, match='the key "a" appears twice'):
        Manifest.parse(written)


def test_a_key_that_is_misspelt_is_told_with_what_to_write() -> None:
    written = {"start": "a", "Steps": {"a": {"ask": "m", "otherwhise": "n"}}, "rights": "pipeline"}
    with pytest.raises(InvalidPipeline) as caught:
        Pipeline.parse(written)
    told = str(caught.value)
    assert '"start" has no meaning; write "Start"' in told
    assert '"rights" has no meaning; write "Rights"' in told
    assert 'step "a" has "otherwhise", which no step has; write "otherwise"' in told


def test_keys_that_others_use_are_no_misspelt_ones() -> None:
    written = {"Start": "a", "Steps": {"a": {"ask": "m"}}, "Weights": 1, "Insights": 2, "Status": 3}
    assert Pipeline.parse(written).rights is Rights.MODELS


@pytest.mark.parametrize("algorithm", ["Pipeline", "PIPELINE", "pipeline "])
def test_a_pipeline_by_another_spelling_is_told_how_to_write_it(algorithm: str) -> None:
    written = {"Algorithm": algorithm, "Start": "a", "Steps": {"a": {"ask": "m"}}}
    with refused(InvalidManifest, match='write "pipeline"'):
        Manifest.parse(json.dumps(written).encode())


def test_the_steps_are_in_the_order_of_the_routes() -> None:
    steps = {
        "a": {"ask": "m", "route": {"z": "one", "y": "two", "x": "three"}, "otherwise": "last"},
        "three": {"ask": "m", "otherwise": "last"},
        "two": {"ask": "m"},
    }
    assert list(Pipeline.parse({"Start": "a", "Steps": steps}).steps) == ["a", "one", "two", "three", "last"]


def test_one_message_names_every_fault() -> None:
    steps = {
        "a": {"ask": "m", "otherwise": "a"},
        "b": {"ask": "../m"},
        "c": {"when": 1},
        "d": {"ask": ["m", "n"]},
    }
    with pytest.raises(InvalidPipeline) as caught:
        Pipeline.parse({"Start": "z", "Steps": steps})
    for told in ('"a" leads to itself', '"b" asks "../m"', '"c" has "when"', '"d" asks several', "Start must name"):
        assert told in str(caught.value)


def test_a_pipeline_is_in_the_manifest_of_its_algorithm_alone() -> None:
    manifest = Manifest.parse(json.dumps({"Algorithm": "pipeline", "ModelName": "acme", **ACME}).encode())
    assert manifest.pipeline == Pipeline.parse(ACME)
    assert manifest.is_elsewhere
    assert Manifest.parse(manifest.to_json().encode()) == manifest
    other = Manifest.parse(json.dumps({"Algorithm": "intent-classification", "Steps": 7, "Start": []}).encode())
    assert other.pipeline is None
    assert not other.is_elsewhere


def test_the_faults_of_a_pipeline_are_those_of_its_manifest() -> None:
    with refused(InvalidManifest) as caught:
        Manifest.parse(json.dumps({"Algorithm": "pipeline", **one(ask="m", otherwise="a")}).encode())
    assert 'step "a" leads to itself' in str(caught.value)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=12,
)
STEP_LIKE = st.fixed_dictionaries(
    {},
    optional={
        "ask": st.sampled_from(["m", ["m", "n"], []]) | JSON,
        "detect": st.just("language") | JSON,
        "vote": st.sampled_from(["mean", "majority"]) | JSON,
        "route": st.dictionaries(st.text(max_size=3), st.sampled_from(["a", "b", "m"]), max_size=3) | JSON,
        "otherwise": st.sampled_from(["a", "b", "m"]) | JSON,
        "within": st.floats() | JSON,
    },
)


@given(
    st.dictionaries(st.sampled_from(["a", "b", "c", ""]), STEP_LIKE | JSON, max_size=4), st.sampled_from(["a"]) | JSON
)
def test_any_definition_is_read_or_refused(steps: dict[str, Any], start: object) -> None:
    try:
        pipeline = Pipeline.parse({"Start": start, "Steps": steps})
    except InvalidPipeline:
        return
    assert all(target in pipeline.steps for step in pipeline.steps.values() for target in step.targets)
