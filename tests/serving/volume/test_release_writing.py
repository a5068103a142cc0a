from __future__ import annotations

import fcntl
import functools
import multiprocessing
import os
import stat
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest

from intent_serving_client.releases import MAX_HISTORY
from serving.domain.errors import (
    InvalidRelease,
    ModelNotFound,
    ModelUnusable,
    ReleaseConflict,
    ReleaseRefused,
    VolumeReadOnly,
)
from serving.domain.model_id import parse_model_name
from serving.domain.releases.changes import released
from serving.domain.releases.release import RELEASE_FILE, Release
from serving.volume.model_store import ModelStore
from serving.volume.release_writing import LOCK_FILE, change_release

NAME = parse_model_name("helpdesk")
WRITERS = 4
CHANGES = 25


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    (tmp_path / NAME).mkdir()
    return tmp_path


def to(version: str) -> Callable[[Release | None], Release]:
    return functools.partial(released, version=version, by="me", at=datetime.now(UTC))


def test_what_is_written_is_what_readers_read(volume: Path) -> None:
    first = change_release(volume, NAME, to("1"), expected_revision=0)
    second = change_release(volume, NAME, to("2"), expected_revision=1)
    assert (first.revision, second.revision) == (1, 2)
    assert ModelStore(volume).read_release(NAME) == second
    assert {path.name for path in (volume / NAME).iterdir()} == {RELEASE_FILE, LOCK_FILE}


@pytest.mark.parametrize("expected", [0, 1, 3])
def test_who_knows_another_revision_changes_nothing(volume: Path, expected: int) -> None:
    change_release(volume, NAME, to("1"))
    known = change_release(volume, NAME, to("2"))
    with pytest.raises(ReleaseConflict, match="revision 2"):
        change_release(volume, NAME, to("3"), expected_revision=expected)
    assert ModelStore(volume).read_release(NAME) == known


def test_a_refused_change_changes_nothing(volume: Path) -> None:
    known = change_release(volume, NAME, to("1"))
    with pytest.raises(ReleaseRefused):
        change_release(volume, NAME, to("1"))
    assert ModelStore(volume).read_release(NAME) == known


def test_services_of_another_user_can_read_it_whatever_the_umask(volume: Path) -> None:
    former = os.umask(0o077)
    try:
        change_release(volume, NAME, to("1"))
    finally:
        os.umask(former)
    assert stat.S_IMODE((volume / NAME / RELEASE_FILE).stat().st_mode) == 0o644


def test_each_release_is_another_file_for_those_who_look_even_by_a_clock_that_stands_still(volume: Path) -> None:
    change_release(volume, NAME, to("0"))
    ahead = time.time_ns() + 3600 * 10**9
    os.utime(volume / NAME / RELEASE_FILE, ns=(ahead, ahead))
    times = []
    for number in range(1, 4):
        change_release(volume, NAME, to(f"{number}"))
        times.append((volume / NAME / RELEASE_FILE).stat().st_mtime_ns)
    assert times == [ahead + 1, ahead + 2, ahead + 3]


def test_one_writer_at_a_time_and_the_other_is_told(volume: Path) -> None:
    (volume / NAME / LOCK_FILE).touch()
    with (volume / NAME / LOCK_FILE).open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(ReleaseConflict, match="another change of the release"):
            change_release(volume, NAME, to("1"))
    assert change_release(volume, NAME, to("1")).revision == 1


def test_what_a_writer_that_died_has_left_is_in_nobodys_way(volume: Path) -> None:
    (volume / NAME / ".release.staged").write_text("{")
    assert change_release(volume, NAME, to("1")).revision == 1
    assert not (volume / NAME / ".release.staged").exists()


def test_a_release_that_cannot_be_understood_is_not_overwritten(volume: Path) -> None:
    (volume / NAME / RELEASE_FILE).write_text("{}")
    with pytest.raises(InvalidRelease):
        change_release(volume, NAME, to("1"))
    assert (volume / NAME / RELEASE_FILE).read_text() == "{}"


def test_a_name_that_is_not_there_or_is_a_link_has_no_release(volume: Path) -> None:
    with pytest.raises(ModelNotFound):
        change_release(volume, parse_model_name("nobody"), to("1"))
    (volume / "link").symlink_to(volume / NAME)
    with pytest.raises(ModelUnusable, match="link"):
        change_release(volume, parse_model_name("link"), to("1"))
    assert not (volume / NAME / RELEASE_FILE).exists()


def test_a_folder_that_is_taken_away_meanwhile_is_a_conflict(volume: Path) -> None:
    def away(release: Release | None) -> Release:
        (volume / NAME).rename(volume / ".away")
        return to("1")(release)

    with pytest.raises(ReleaseConflict, match="removed or replaced"):
        change_release(volume, NAME, away)


def test_a_volume_that_may_only_be_read_says_what_to_do(volume: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A fake, because mounts need privileges that tests do not have.
    def refuse(*_: object, **__: object) -> int:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("serving.volume.release_writing.os.open", refuse)
    with pytest.raises(VolumeReadOnly, match="--model-dir"):
        change_release(volume, NAME, to("1"))


def _write(root: Path, writer: int) -> list[int]:
    """Make changes until ``CHANGES`` of them have succeeded; return their revisions."""
    made: list[int] = []
    while len(made) < CHANGES:
        version = f"{writer}-{len(made)}"
        try:
            made.append(change_release(root, NAME, to(version)).revision)
        except ReleaseConflict:
            continue
    return made


def _compare_and_set(root: Path, writer: int) -> int:
    """Try to make the change that follows revision 1; return 1 on success, else 0."""
    try:
        change_release(root, NAME, to(f"w{writer}"), expected_revision=1)
    except ReleaseConflict:
        return 0
    return 1


@pytest.mark.slow
def test_no_change_of_many_processes_is_lost(volume: Path) -> None:
    with ProcessPoolExecutor(WRITERS, multiprocessing.get_context("spawn")) as pool:
        made = [
            revision for revisions in pool.map(_write, [volume] * WRITERS, range(WRITERS)) for revision in revisions
        ]
    # Each revision was made once, by one of the processes, and the last revision is in force.
    assert sorted(made) == list(range(1, WRITERS * CHANGES + 1))
    release = ModelStore(volume).read_release(NAME)
    assert release.revision == WRITERS * CHANGES
    assert [change.revision for change in release.history] == list(range(release.revision, 0, -1))[:MAX_HISTORY]


@pytest.mark.slow
def test_of_those_who_know_the_same_revision_one_wins(volume: Path) -> None:
    change_release(volume, NAME, to("1"))
    with ProcessPoolExecutor(WRITERS, multiprocessing.get_context("spawn")) as pool:
        assert sum(pool.map(_compare_and_set, [volume] * 16, range(16))) == 1
    assert ModelStore(volume).read_release(NAME).revision == 2
