"""Users put models of their own into ``models/``, as the README says; the tests pass beside them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.builders import publish
from tests.conftest import ROOT, SHARED

# Tests of all sample models together.
TESTS = (
    "tests/intentctl/test_capacity.py::test_models_are_measured_as_the_predictor_counts_them",
    "tests/predictor/model/test_explanation.py::test_every_sample_model_explains_itself",
    "tests/training/test_example.py::test_every_sample_model_answers_its_example",
)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_model_of_the_user_s_own_fails_no_test(tmp_path: Path) -> None:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    clone = tmp_path / "clone"
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (clone / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, clone / name)
    publish(clone / "models", "helpdesk")
    publish(clone / "models", "elsewhere", files={}, Algorithm="image-segmentation")
    environment = os.environ | {"INTENT_SHARED": str(SHARED), "PYTHONPATH": str(clone)}
    for name in [name for name in environment if name.startswith("PYTEST_")]:
        del environment[name]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-n0", "--rootdir", str(clone), *TESTS],
        cwd=clone,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-5000:]
    assert " passed" in done.stdout
