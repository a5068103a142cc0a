"""The programs in ``scripts/`` as a newcomer meets them, before anything is installed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from intent_serving_client import VERSION
from tests.builders import PATIENCE
from tests.conftest import ROOT

RELEASE_SECONDS = 900
SETTINGS = ("pyproject.toml", "clients/python/pyproject.toml")
SCRIPTS = sorted(path.name for path in (ROOT / "scripts").iterdir() if os.access(path, os.X_OK))


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """Return a folder with the scripts and their requirements, where nothing can be installed or generated."""
    for name in ("scripts", "requirements"):
        shutil.copytree(ROOT / name, tmp_path / name)
    for name in SETTINGS:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def run(clone: Path, name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [clone / "scripts" / name, *arguments],
        cwd=clone.parent, env={"PATH": os.environ["PATH"], "PYTHON": "/nonexistent"}, timeout=PATIENCE,
        check=False, capture_output=True, text=True,
    )  # fmt: skip


@pytest.mark.parametrize("name", SCRIPTS)
@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_is_short_and_installs_nothing(clone: Path, name: str, flag: str) -> None:
    helped = run(clone, name, flag)

    assert (helped.returncode, helped.stderr) == (0, "")
    assert f"scripts/{name} --help" in helped.stdout
    assert not any(line.startswith(("#", "set ", "source ")) for line in helped.stdout.splitlines())
    assert len(helped.stdout.splitlines()) < 25
    assert {path.name for path in clone.iterdir()} == {"scripts", "requirements", "pyproject.toml", "clients"}


def test_help_of_the_tests_names_the_sets_and_the_options(clone: Path) -> None:
    said = run(clone, "test", "tests/predictor", "--help").stdout

    for told in ("--with-triton", "-m slow", '-m "alone or containers" -n 0', "scripts/test -- --help"):
        assert told in said


@pytest.mark.parametrize("name", [name for name in SCRIPTS if name not in ("stubs", "release")])
def test_behind_a_double_dash_help_is_that_of_the_program_below(clone: Path, name: str) -> None:
    helped = run(clone, name, "--", "--help")

    assert (helped.returncode, helped.stdout) == (1, "")
    assert "Python 3.11 or newer is needed" in helped.stderr  # it went on to install


def test_stubs_refuse_what_they_do_not_know_before_anything_is_generated(clone: Path) -> None:
    refused = run(clone, "stubs", "--chekc")

    assert (refused.returncode, refused.stdout) == (2, "")
    assert "--chekc" in refused.stderr
    assert "scripts/stubs --help" in refused.stderr


def git(folder: Path, *arguments: str) -> str:
    settings = ("-c", "user.name=a maintainer", "-c", "user.email=maintainer@localhost", "-c", "commit.gpgsign=false")
    return subprocess.run(
        ["git", *settings, *arguments], cwd=folder, check=True, capture_output=True, text=True, timeout=PATIENCE
    ).stdout


@pytest.fixture
def tagged(tmp_path: Path) -> Path:
    """Return a repository of the project's files whose version is in its changelog and has its tag."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, check=True, capture_output=True, text=True,
    ).stdout.splitlines()  # fmt: skip
    repository = tmp_path / "repository"
    for name in listed:
        source, copy = ROOT / name, repository / name
        if name.startswith(("tests/", "benchmarks/", "docs/")) or not source.exists():
            continue
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, copy, follow_symlinks=False)
    changelog = repository / "CHANGELOG.md"
    changelog.write_text(
        changelog.read_text().replace(
            "## [Unreleased]\n", f"## [Unreleased]\n\n- Later.\n\n## [{VERSION}]\n\n- What is new.\n\n## [0.0.1]\n", 1
        )
    )
    git(repository, "init", "--quiet")
    committed(repository, "a release")
    git(repository, "tag", f"v{VERSION}")
    return repository


def committed(repository: Path, message: str) -> None:
    git(repository, "add", "--all")
    git(repository, "commit", "--quiet", "--message", message)


def release(repository: Path, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [repository / "scripts" / "release", *arguments],
        cwd=repository.parent, env={**os.environ, **settings}, timeout=RELEASE_SECONDS,
        check=False, capture_output=True, text=True,
    )  # fmt: skip


def assert_refused(repository: Path, reason: str, *arguments: str) -> None:
    refused = release(repository, *arguments)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert reason in refused.stderr
    assert not (repository / "dist").exists()


def test_a_release_is_made_of_a_tag_that_is_checked_out_and_nothing_else(tagged: Path) -> None:
    assert_refused(tagged, "name the tag")
    assert_refused(tagged, "no option --chekc", f"v{VERSION}", "--chekc")
    assert_refused(tagged, "one tag at a time", f"v{VERSION}", "v2")
    assert_refused(tagged, "there is no tag v9.9.9", "v9.9.9")

    (tagged / "README.md").write_text("changed")
    assert_refused(tagged, "the working tree has changes", f"v{VERSION}")

    committed(tagged, "a change after the tag")
    assert_refused(tagged, f"v{VERSION} is not checked out", f"v{VERSION}")


def test_a_tag_that_is_not_that_of_the_version_is_refused(tagged: Path) -> None:
    git(tagged, "tag", "v9.9.9")
    assert_refused(tagged, f"the tag of version {VERSION} is v{VERSION}, not v9.9.9", "v9.9.9")


@pytest.mark.parametrize(
    ("heading", "reason"), [("", "has no version"), (f"## [{VERSION}]\n\n## [0.0.1]\n", "says nothing of version")]
)
def test_a_version_of_which_the_changelog_says_nothing_is_refused(tagged: Path, heading: str, reason: str) -> None:
    (tagged / "CHANGELOG.md").write_text(f"# Changelog\n\n## [Unreleased]\n\n- Later.\n\n{heading}")
    committed(tagged, "another changelog")
    git(tagged, "tag", "--force", f"v{VERSION}")
    assert_refused(tagged, f"{reason} {VERSION}", f"v{VERSION}")


def test_wheels_that_require_another_version_of_each_other_are_refused(tagged: Path) -> None:
    settings = tagged / "pyproject.toml"
    settings.write_text(settings.read_text().replace(f"[fast]=={VERSION}", "[fast]==0.0.9"))
    committed(tagged, "another pin")
    git(tagged, "tag", "--force", f"v{VERSION}")
    assert_refused(tagged, "must require each other", f"v{VERSION}")


@pytest.mark.slow
@pytest.mark.timeout(2 * RELEASE_SECONDS)
def test_a_release_is_checked_described_and_the_same_when_it_is_made_again(tagged: Path, tmp_path: Path) -> None:
    made = release(tagged, f"v{VERSION}", "--no-images")
    assert made.returncode == 0, made.stderr
    assert "skipped: images (--no-images)" in made.stderr
    folder = tagged / "dist" / VERSION

    assert {path.name for path in folder.iterdir()} == {
        f"intent_serving-{VERSION}-py3-none-any.whl",
        f"intent_serving_client-{VERSION}-py3-none-any.whl",
        f"intent_serving_http2-{VERSION}-py3-none-any.whl",
        f"intent-serving-{VERSION}.cdx.json",
        f"intent-serving-client-{VERSION}.cdx.json",
        "NOTES.md",
        "SHA256SUMS",
    }
    assert (folder / "NOTES.md").read_text().strip() == "- What is new."
    subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=folder, check=True, timeout=PATIENCE)

    bill = json.loads((folder / f"intent-serving-client-{VERSION}.cdx.json").read_text())
    assert bill["bomFormat"] == "CycloneDX"
    assert bill["metadata"]["component"]["name"] == "intent-serving-client"
    names = {component["name"] for component in bill["components"]}
    assert {"grpcio", "protobuf"} <= names
    assert not {"pip", "pytest", "torch"} & names

    again = release(tagged, f"v{VERSION}", "--no-images", "--output", str(tmp_path / "again"))
    assert again.returncode == 0, again.stderr
    assert again.stdout == made.stdout
