from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from intent_serving_client.releases import MAX_HISTORY
from serving.domain.errors import InvalidModelId, InvalidRequest, ReleaseRefused
from serving.domain.releases.changes import (
    MAX_COMMENT,
    former_stable,
    promoted,
    protected_versions,
    released,
    rolled_back,
    taken_back,
    with_canary,
    with_label,
    with_shadow,
    withdrawn,
)
from serving.domain.releases.release import MAX_LABELS, MAX_RELEASE_BYTES, Release

AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def of(*versions: str) -> Release:
    """Return the release after these versions went live one after the other."""
    release: Release | None = None
    for version in versions:
        release = released(release, version=version, by="me", at=AT)
    assert release is not None
    return release


def test_the_first_release_has_revision_1_and_its_change() -> None:
    release = released(None, version="1", by="me", at=AT, comment="first")
    assert (release.revision, release.stable) == (1, "1")
    (change,) = release.history
    assert (change.action, change.version, change.stable, change.by, change.at, change.comment) == (
        "release",
        "1",
        "1",
        "me",
        AT,
        "first",
    )


def test_a_rollback_goes_to_what_was_stable_before() -> None:
    release = rolled_back(of("1", "2", "3"), by="me", at=AT)
    assert (release.stable, release.revision, release.history[0].action) == ("2", 4, "rollback")


def test_two_rollbacks_go_back_by_two_and_never_to_the_version_that_was_bad() -> None:
    once = rolled_back(of("1", "2", "3"), by="me", at=AT)
    assert rolled_back(once, by="me", at=AT).stable == "1"
    with pytest.raises(ReleaseRefused):
        rolled_back(rolled_back(once, by="me", at=AT), by="me", at=AT)


def test_what_was_rolled_back_counts_again_once_it_is_released_again() -> None:
    release = rolled_back(of("1", "2"), by="me", at=AT)
    for version in ("2", "3"):
        release = released(release, version=version, by="me", at=AT)
    assert former_stable(release) == "2"


def test_a_rollback_forward_leaves_the_version_that_it_comes_from_behind_too() -> None:
    back = rolled_back(of("1", "2", "3"), by="me", at=AT)
    forward = rolled_back(back, version="3", by="me", at=AT)
    assert (back.stable, forward.stable, former_stable(forward)) == ("2", "3", "1")


def test_a_rollback_may_name_any_version_that_was_stable_and_no_other() -> None:
    release = of("1", "2", "3")
    assert rolled_back(release, version="1", by="me", at=AT).stable == "1"
    with pytest.raises(ReleaseRefused, match="was not stable"):
        rolled_back(release, version="4", by="me", at=AT)
    with pytest.raises(ReleaseRefused, match="already"):
        rolled_back(release, version="3", by="me", at=AT)


def test_a_rollback_ends_the_canary() -> None:
    release = with_canary(of("1", "2"), version="3", by="me", at=AT)
    assert rolled_back(release, by="me", at=AT).canary is None


def test_a_former_stable_version_is_found_through_other_changes() -> None:
    release = with_shadow(of("1", "2"), version="3", by="me", at=AT)
    release = with_label(release, label="beta", version="3", by="me", at=AT)
    assert former_stable(release) == "1"
    assert former_stable(of("1")) is None


def test_a_promotion_makes_the_canary_stable() -> None:
    release = promoted(with_canary(of("1"), version="2", share=0.5, by="me", at=AT), by="me", at=AT)
    assert (release.stable, release.canary, release.history[0].action) == ("2", None, "promote")
    with pytest.raises(ReleaseRefused, match="no canary"):
        promoted(release, by="me", at=AT)


def test_a_release_ends_the_trials_of_the_same_version_and_leaves_others() -> None:
    release = with_shadow(with_canary(of("1"), version="2", by="me", at=AT), version="3", by="me", at=AT)
    same = released(release, version="2", by="me", at=AT)
    assert same.canary is None
    assert same.shadow is not None
    other = released(release, version="4", by="me", at=AT)
    assert other.canary is not None
    assert released(release, version="3", by="me", at=AT).shadow is None


def test_a_canary_has_what_was_asked_and_else_what_a_canary_has() -> None:
    canary = with_canary(of("1"), version="2", share=0.25, max_error_rate=0.5, by="me", at=AT).canary
    assert canary is not None
    assert (canary.share, canary.max_error_rate, canary.max_disagreement, canary.min_answers) == (0.25, 0.5, 0.2, 50)


@pytest.mark.parametrize("bad", [{"share": 1.1}, {"share": float("nan")}, {"min_answers": 0}, {"max_error_rate": -0.1}])
def test_a_canary_beyond_what_can_be_is_refused(bad: dict[str, float]) -> None:
    with pytest.raises(InvalidRequest, match=next(iter(bad))):
        with_canary(of("1"), version="2", by="me", at=AT, **bad)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "change",
    [
        lambda: released(of("1"), version="1", by="", at=AT),
        lambda: with_canary(of("1"), version="1", by="", at=AT),
        lambda: with_shadow(of("1"), version="1", by="", at=AT),
        lambda: with_shadow(with_canary(of("1"), version="2", by="", at=AT), version="2", by="", at=AT),
        lambda: with_canary(None, version="1", by="", at=AT),
        lambda: with_shadow(None, version="1", by="", at=AT),
        lambda: with_label(None, label="beta", version="1", by="", at=AT),
        lambda: promoted(None, by="", at=AT),
        lambda: rolled_back(None, by="", at=AT),
        lambda: withdrawn(None, role="canary", by="", at=AT),
        lambda: withdrawn(of("1"), role="canary", by="", at=AT),
        lambda: withdrawn(of("1"), role="shadow", by="", at=AT),
        lambda: withdrawn(of("1"), role="label", label="beta", by="", at=AT),
        lambda: taken_back(None, version="1", at=AT),
        lambda: taken_back(with_canary(of("1"), version="3", by="", at=AT), version="2", at=AT),
    ],
)
def test_what_makes_no_sense_is_refused(change: Callable[[], Release]) -> None:
    with pytest.raises(ReleaseRefused):
        change()


@pytest.mark.parametrize("label", ["stable", "canary", "shadow", "2", "1"])
def test_a_label_may_not_hide_a_role_or_a_version(label: str) -> None:
    with pytest.raises(ReleaseRefused):
        with_label(of("1"), label=label, version="1", by="me", at=AT, versions=["1", "2"])


def test_a_version_that_is_called_like_a_label_or_a_role_cannot_go_live() -> None:
    labelled = with_label(of("1"), label="beta", version="1", by="me", at=AT)
    with pytest.raises(ReleaseRefused, match="label"):
        released(labelled, version="beta", by="me", at=AT)
    with pytest.raises(ReleaseRefused, match="may not be named"):
        released(labelled, version="canary", by="me", at=AT)


def test_labels_are_set_moved_and_withdrawn() -> None:
    release = with_label(of("1", "2"), label="beta", version="1", by="me", at=AT)
    moved = with_label(release, label="beta", version="2", by="me", at=AT)
    assert moved.version_of("beta") == "2"
    assert withdrawn(moved, role="label", label="beta", by="me", at=AT).labels == {}
    with pytest.raises(ReleaseRefused, match="already"):
        with_label(moved, label="beta", version="2", by="me", at=AT)


def test_there_are_so_many_labels_and_no_more() -> None:
    release = of("1")
    for number in range(MAX_LABELS):
        release = with_label(release, label=f"label-{number}", version="1", by="me", at=AT)
    with pytest.raises(ReleaseRefused, match="at most"):
        with_label(release, label="one-more", version="1", by="me", at=AT)


def test_names_and_comments_that_cannot_stand_in_a_release_are_refused() -> None:
    with pytest.raises(InvalidModelId):
        released(None, version="../1", by="me", at=AT)
    with pytest.raises(InvalidModelId):
        with_label(of("1"), label="a@b", version="1", by="me", at=AT)
    with pytest.raises(InvalidRequest, match="comment"):
        released(None, version="1", by="me", at=AT, comment="x" * (MAX_COMMENT + 1))


def test_the_largest_release_can_be_read_again() -> None:
    version = "v" * 128
    release = of(version)
    for number in range(MAX_LABELS):
        release = with_label(
            release, label=f"{number:0128}", version=version, by="\x01" * 999, at=AT, comment="\x01" * MAX_COMMENT
        )
    for number in range(MAX_HISTORY):
        release = released(
            release, version=f"{number:0>128}x"[-128:], by="\x01" * 999, at=AT, comment="\x01" * MAX_COMMENT
        )
    text = release.to_json().encode()
    assert len(text) <= MAX_RELEASE_BYTES
    assert Release.parse(text) == release


def test_what_is_live_and_what_a_rollback_needs_is_protected() -> None:
    release = with_label(with_canary(of("1", "2"), version="3", by="", at=AT), label="beta", version="4", by="", at=AT)
    assert protected_versions(release) == {"2": ("stable",), "3": ("canary",), "4": ("beta",), "1": ("former",)}


class Changes(RuleBasedStateMachine):
    """Any order of changes, each as an operator may request it."""

    versions = st.sampled_from(["1", "2", "3", "4", "5"])

    def __init__(self) -> None:
        super().__init__()
        self.release: Release | None = None
        self.went_live: set[str] = set()
        self.was_stable: list[str] = []
        self.at = AT

    def _change(self, change: Callable[..., Release], **arguments: object) -> None:
        before = self.release
        self.at += timedelta(seconds=1)
        try:
            self.release = change(before, by="me", at=self.at, **arguments)
        except ReleaseRefused:
            return
        assert self.release.revision == (0 if before is None else before.revision) + 1
        assert self.release.history[0].revision == self.release.revision
        assert self.release.history[0].stable == self.release.stable
        assert Release.parse(self.release.to_json().encode()) == self.release
        if before is None or before.stable != self.release.stable:
            self.was_stable.append(self.release.stable)

    @rule(version=versions)
    def releases(self, version: str) -> None:
        self.went_live.add(version)
        self._change(released, version=version)

    @rule(version=versions, share=st.floats(0, 1))
    def tries_as_canary(self, version: str, share: float) -> None:
        self.went_live.add(version)
        self._change(with_canary, version=version, share=share)

    @rule(version=versions)
    def tries_as_shadow(self, version: str) -> None:
        self._change(with_shadow, version=version)

    @rule(version=versions, label=st.sampled_from(["a", "b", "1"]))
    def labels(self, version: str, label: str) -> None:
        self._change(with_label, version=version, label=label, versions=["1", "2", "3", "4", "5"])

    @rule()
    def promotes(self) -> None:
        self._change(promoted)

    @rule(version=st.sampled_from(["", "1", "2", "3"]))
    def rolls_back(self, version: str) -> None:
        before = self.release
        expected = None if before is None else former_stable(before)
        self._change(rolled_back, version=version)
        if before is not None and self.release is not before and not version:
            assert self.release is not None
            assert self.release.stable == expected
            assert self.release.canary is None

    @rule(role=st.sampled_from(["canary", "shadow", "label"]))
    def withdraws(self, role: str) -> None:
        self._change(withdrawn, role=role, label="a" if role == "label" else "")

    @precondition(lambda self: self.release is not None and self.release.canary is not None)
    @rule()
    def takes_back(self) -> None:
        assert self.release is not None
        assert self.release.canary is not None
        self._change(
            lambda release, **rest: taken_back(release, version=rest.pop("version"), at=rest["at"]),
            version=self.release.canary.version,
        )
        assert self.release.canary is None

    @invariant()
    def stable_was_released_and_trials_are_others(self) -> None:
        if self.release is None:
            return
        assert self.release.stable in self.went_live
        assert len(self.release.history) <= MAX_HISTORY
        assert self.release.canary is None or self.release.canary.version != self.release.stable
        assert self.release.shadow is None or self.release.shadow.version != self.release.stable

    @invariant()
    def the_former_stable_version_was_stable_and_is_not_now(self) -> None:
        if self.release is None:
            return
        former = former_stable(self.release)
        assert former is None or (former in self.was_stable and former != self.release.stable)


TestChanges = Changes.TestCase
