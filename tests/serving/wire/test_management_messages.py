from __future__ import annotations

from datetime import UTC

import pytest
from hypothesis import given
from hypothesis import strategies as st

from intent_serving_client.management_messages import description_of, page_of, role_message, state_of, watched_of
from intent_serving_client.releases import Canary, Release, ReleaseChange, Shadow
from serving.domain.errors import ServingError
from serving.domain.management import (
    ModelChange,
    ModelDescription,
    ModelPage,
    ModelSummary,
    ReleaseState,
    Trial,
    VersionDescription,
)
from serving.domain.residency import ModelResidency, ModelStatistics
from serving.stubs import model_service_pb2 as pb
from serving.wire.management_messages import description_message, page_message, role_of, state_message, watched_message

NAMES = st.from_regex(r"[a-z][a-z0-9.]{0,8}", fullmatch=True)
TEXTS = st.text(max_size=20).filter(lambda text: text.isprintable())
COUNTS = st.integers(0, 1 << 32 - 1)
RATES = st.floats(0.0, 1.0)
REVISIONS = st.integers(1, 1 << 40)
ROLES = st.sampled_from(["stable", "canary", "shadow", "label"])
CANARIES = st.builds(
    Canary,
    version=NAMES,
    share=RATES,
    max_error_rate=RATES,
    max_disagreement=RATES,
    min_answers=st.integers(1, 1_000_000),
)
CHANGES = st.builds(
    ReleaseChange,
    revision=REVISIONS,
    at=st.datetimes(timezones=st.just(UTC)),
    by=TEXTS,
    action=st.sampled_from(["release", "canary", "taken back"]),
    version=NAMES,
    label=NAMES,
    stable=NAMES,
    comment=TEXTS,
)
RELEASES = st.builds(
    Release,
    revision=REVISIONS,
    stable=NAMES,
    canary=st.none() | CANARIES,
    shadow=st.none() | st.builds(Shadow, version=NAMES, share=RATES),
    labels=st.dictionaries(NAMES, NAMES, max_size=3),
    history=st.lists(CHANGES, max_size=3).map(tuple),
)
TRIALS = st.builds(
    Trial,
    role=ROLES,
    version=NAMES,
    answers=COUNTS,
    errors=COUNTS,
    compared=COUNTS,
    agreed=COUNTS,
    skipped=COUNTS,
)
STATES = st.builds(
    ReleaseState, name=NAMES, release=st.none() | RELEASES, trials=st.lists(TRIALS, max_size=2).map(tuple)
)
IN_A_LIST = st.builds(
    Release,
    revision=REVISIONS,
    stable=NAMES,
    canary=st.none() | st.builds(Canary, version=NAMES, share=RATES),
    shadow=st.none() | st.builds(Shadow, version=NAMES, share=RATES),
)
SMALL = st.integers(0, (1 << 32) - 1)
SUMMARIES = st.builds(
    ModelSummary,
    name=NAMES,
    algorithm=TEXTS,
    model_version=TEXTS,
    labels=SMALL,
    bytes=COUNTS,
    versions=st.lists(NAMES, max_size=3).map(tuple),
    release=st.none() | IN_A_LIST,
    problem=TEXTS,
)
DESCRIPTIONS = st.builds(
    ModelDescription,
    summary=SUMMARIES,
    manifest=TEXTS,
    versions=st.lists(
        st.builds(
            VersionDescription,
            version=NAMES,
            model_version=TEXTS,
            algorithm=TEXTS,
            labels=SMALL,
            bytes=COUNTS,
            problem=TEXTS,
            roles=st.lists(NAMES, max_size=2).map(tuple),
        ),
        max_size=2,
    ).map(tuple),
    release=st.none() | STATES,
    residences=st.lists(
        st.builds(
            ModelResidency,
            replica=NAMES,
            resident=st.booleans(),
            pinned=st.booleans(),
            bytes=COUNTS,
            leases=SMALL,
            statistics=st.none() | st.builds(ModelStatistics, COUNTS, COUNTS, COUNTS, COUNTS, COUNTS, st.just(1.5)),
        ),
        max_size=2,
    ).map(tuple),
)


@given(STATES)
def test_a_release_comes_through_whole(state: ReleaseState) -> None:
    assert state_of(state_message(state)) == state


@given(STATES.filter(lambda state: state.release is not None), st.integers(0, 3))
def test_history_comes_as_long_as_it_is_asked_for(state: ReleaseState, length: int) -> None:
    assert state.release is not None
    back = state_of(state_message(state, length)).release
    assert back is not None
    assert back.history == state.release.history[:length]


@given(st.builds(ModelPage, models=st.lists(SUMMARIES, max_size=3).map(tuple), next_page_token=NAMES))
def test_a_page_comes_through_whole(page: ModelPage) -> None:
    assert page_of(page_message(page)) == page


@given(DESCRIPTIONS)
def test_a_description_comes_through_whole(description: ModelDescription) -> None:
    assert description_of(description_message(description)) == description


@pytest.mark.parametrize("kind", ["added", "changed", "removed", "synchronized"])
def test_a_change_comes_through_whole(kind: str) -> None:
    change = ModelChange(kind, "bot@1")  # type: ignore[arg-type]
    assert watched_of(watched_message(change)) == change


def test_changes_and_roles_of_a_newer_service_are_left_aside() -> None:
    assert watched_of(pb.ModelChange(kind=99)) is None  # type: ignore[arg-type]
    assert role_of(99) is None
    assert role_of(pb.RELEASE_ROLE_UNSPECIFIED) is None
    assert role_of(role_message("shadow")) == "shadow"


@pytest.mark.parametrize(
    "message",
    [
        pb.ReleaseState(name="bot", revision=1),
        pb.ReleaseState(name="bot", revision=1, stable="1", history=[pb.ReleaseChange(revision=1, at="yesterday")]),
        pb.ReleaseState(name="bot", revision=1, stable="1", canary=pb.CanaryState(version="2", share=7)),
    ],
)
def test_an_answer_that_is_not_understood_is_told_as_such(message: pb.ReleaseState) -> None:
    with pytest.raises(ServingError, match="cannot be decoded"):
        state_of(message)
