from __future__ import annotations

import fcntl
from pathlib import Path
from typing import Any

import pytest

from serving.domain.errors import ModelInService, ModelNotFound, ModelUnusable, ReleaseConflict, VolumeUnavailable
from serving.domain.model_id import ModelId, parse_model_id
from serving.domain.releases.changes import rolled_back
from serving.volume.deleting import HIDDEN, delete, models_in
from serving.volume.publishing import publish as published
from serving.volume.release_writing import LOCK_FILE, release_lock
from tests.builders import publish
from tests.frontend.releases.running import write_release
from tests.serving.domain.releases.test_changes import AT, of


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name != LOCK_FILE)


@pytest.fixture
def bot(tmp_path: Path) -> Path:
    """A volume with a name of three versions, of which 2 is stable and 1 was stable before."""
    for version in "123":
        publish(tmp_path / "bot", version)
    write_release(tmp_path, of("1", "2"), "bot")
    return tmp_path


def test_a_version_that_nobody_needs_goes_and_leaves_nothing(bot: Path) -> None:
    delete(bot, ModelId("bot@3"))
    assert names(bot) == ["bot"]
    assert names(bot / "bot") == ["1", "2", "release.json"]


@pytest.mark.parametrize("model_id", ["bot@1", "bot@2", "bot", "flat"])
def test_what_is_protected_goes_by_force_alone(bot: Path, model_id: str) -> None:
    publish(bot, "flat")
    with pytest.raises(ModelInService, match="confirm with force=true"):
        delete(bot, parse_model_id(model_id))
    assert names(bot) == ["bot", "flat"]
    assert names(bot / "bot") == ["1", "2", "3", "release.json"]
    delete(bot, parse_model_id(model_id), force=True)
    with pytest.raises(ModelNotFound):
        delete(bot, parse_model_id(model_id), force=True)


def test_a_version_that_was_rolled_back_is_not_protected(bot: Path) -> None:
    write_release(bot, rolled_back(of("1", "2"), by="", at=AT), "bot")
    delete(bot, ModelId("bot@2"))
    assert names(bot / "bot") == ["1", "3", "release.json"]


@pytest.mark.parametrize("model_id", ["link", "bot@link"])
def test_a_link_is_not_followed(bot: Path, model_id: str) -> None:
    (bot / "link").symlink_to(bot / "bot")
    (bot / "bot" / "link").symlink_to(bot / "bot" / "3")
    with pytest.raises(ModelUnusable, match="link"):
        delete(bot, parse_model_id(model_id), force=True)
    assert names(bot / "bot") == ["1", "2", "3", "link", "release.json"]


@pytest.mark.parametrize("model_id", ["nobody", "bot@9", "nobody@1"])
def test_what_is_not_there_is_told(bot: Path, model_id: str) -> None:
    with pytest.raises(ModelNotFound):
        delete(bot, parse_model_id(model_id), force=True)


def test_nothing_goes_while_the_release_is_changed(bot: Path) -> None:
    (bot / "bot" / LOCK_FILE).touch()
    with (bot / "bot" / LOCK_FILE).open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(ReleaseConflict):
            delete(bot, ModelId("bot@3"))
    assert "3" in names(bot / "bot")


def test_what_a_deletion_that_was_cut_off_has_left_goes_with_the_next(bot: Path) -> None:
    (bot / f"{HIDDEN}left" / "folder").mkdir(parents=True)
    delete(bot, ModelId("bot@3"))
    assert names(bot) == ["bot"]


def test_files_that_stay_are_told_though_the_model_is_gone(bot: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Any, *, ignore_errors: bool) -> None:
        assert ignore_errors
        assert Path(path).is_dir()

    monkeypatch.setattr("serving.volume.deleting.shutil.rmtree", refuse)
    with pytest.raises(VolumeUnavailable, match="the model is deleted"):
        delete(bot, ModelId("bot@3"))
    assert names(bot / "bot") == ["1", "2", "release.json"]


def test_the_folder_of_a_name_goes_with_its_last_version(tmp_path: Path) -> None:
    source = publish(tmp_path / "made", "model")
    (tmp_path / "volume").mkdir()
    for model_id in ("bot@1", "bot"):
        published(source, tmp_path / "volume", parse_model_id(model_id))
        delete(tmp_path / "volume", parse_model_id(model_id), force=True)
        assert list((tmp_path / "volume").iterdir()) == []


def test_what_else_there_is_under_a_name_outlasts_its_last_version(tmp_path: Path) -> None:
    for name in ("released", "flat"):
        publish(tmp_path / name, "1")
        write_release(tmp_path, of("1"), "released")
    publish(tmp_path, "flat")
    for name in ("released", "flat"):
        delete(tmp_path, ModelId(f"{name}@1"), force=True)
    assert names(tmp_path / "released") == ["release.json"]
    assert names(tmp_path / "flat") == ["manifest.json", "model.pth", "vocab.pth"]


def test_a_version_that_is_published_while_the_last_one_goes_is_not_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(tmp_path / "bot", "1")
    remove = Path.rmdir

    def too_late(folder: Path) -> None:
        publish(folder, "2")
        remove(folder)

    monkeypatch.setattr(Path, "rmdir", too_late)
    delete(tmp_path, ModelId("bot@1"), force=True)
    assert names(tmp_path / "bot") == ["2"]


def test_a_lock_on_a_file_that_was_removed_meanwhile_is_none(bot: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock = fcntl.flock

    def too_late(file: int, operation: int) -> None:
        lock(file, operation)
        (bot / "bot" / LOCK_FILE).unlink()

    monkeypatch.setattr("serving.volume.release_writing.fcntl.flock", too_late)
    with pytest.raises(ReleaseConflict), release_lock(bot, ModelId("bot")):
        pass


@pytest.mark.parametrize(
    ("model_id", "models"),
    [("bot", ["bot@1", "bot@2", "bot@3"]), ("bot@2", ["bot@2"]), ("flat", ["flat"]), ("both", ["both", "both@1"])],
)
def test_a_deletion_removes_these_models(bot: Path, model_id: str, models: list[str]) -> None:
    publish(bot, "flat")
    publish(bot, "both")
    publish(bot / "both", "1")
    assert models_in(bot, parse_model_id(model_id)) == models


def test_a_damaged_version_counts_and_other_files_do_not(bot: Path) -> None:
    (bot / "bot" / "1" / "manifest.json").unlink()
    (bot / "bot" / "notes").touch()
    (bot / "bot" / "no name").mkdir()
    assert models_in(bot, ModelId("bot")) == ["bot@1", "bot@2", "bot@3"]
    with pytest.raises(ModelNotFound):
        models_in(bot, ModelId("nobody"))
