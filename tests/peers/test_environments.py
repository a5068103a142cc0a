from __future__ import annotations

import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from peers.environments import HOME_SETTING, CannotInstall, environment, is_installed

pytestmark = pytest.mark.slow


@pytest.fixture
def requirements(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty folder of requirements, and set an empty home for environments."""
    folder = tmp_path / "requirements"
    folder.mkdir()
    monkeypatch.setenv(HOME_SETTING, str(tmp_path / "home"))
    return folder


def test_an_environment_is_made_once_however_many_want_it_and_again_when_its_pins_change(requirements: Path) -> None:
    (requirements / "nothing.txt").write_text("# no package\n")
    assert not is_installed("nothing", requirements)

    with ThreadPoolExecutor(2) as both:
        first, second = both.map(environment, ["nothing"] * 2, [requirements] * 2)

    assert first == second
    assert is_installed("nothing", requirements)
    assert subprocess.run([first.python, "-c", "import pip"], check=False).returncode == 0
    mark = first.folder / "mark"
    mark.touch()
    environment("nothing", requirements)
    assert mark.exists(), "it was made again"
    (requirements / "nothing.txt").write_text("# no package at all\n")
    assert not is_installed("nothing", requirements)
    environment("nothing", requirements)
    assert not mark.exists(), "it was not made again"


def test_what_cannot_be_installed_says_why_and_is_tried_again(requirements: Path, tmp_path: Path) -> None:
    (requirements / "broken.txt").write_text(f"no-such-package @ {(tmp_path / 'no-such-package.whl').as_uri()}\n")

    for _ in range(2):
        with pytest.raises(CannotInstall, match="installing broken"):
            environment("broken", requirements)
    assert not is_installed("broken", requirements)
