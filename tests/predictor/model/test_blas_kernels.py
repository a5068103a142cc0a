"""The predictor's promises about numbers hold with every kernel of OpenBLAS, not only with this processor's own.

OpenBLAS, which NumPy brings, takes the kernel that is made for the processor, and each kernel adds up in its own
order. The variable OPENBLAS_CORETYPE chooses another kernel when NumPy is imported, so each kernel needs a process.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import pytest

from predictor.model.folded_network import FoldedNetwork
from tests.conftest import ROOT

pytestmark = pytest.mark.slow


class Kernel(NamedTuple):
    """A kernel by the name that OpenBLAS takes."""

    name: str
    reported: str
    """The name that OpenBLAS reports for the kernel; a build without the kernel reports another name."""
    instructions: frozenset[str]
    """The instruction sets that the kernel needs, as /proc/cpuinfo names them."""


KERNELS: Final = [
    # A build without kernels for processors before Prescott reports the name of the oldest of them.
    Kernel("Prescott", "Katmai", frozenset({"pni"})),
    Kernel("Sandybridge", "Sandybridge", frozenset({"avx"})),
    # OpenBLAS takes this kernel for Zen too.
    Kernel("Haswell", "Haswell", frozenset({"avx2", "fma"})),
    # OpenBLAS takes this kernel for Cooperlake too.
    Kernel("SkylakeX", "SkylakeX", frozenset({"avx512f", "avx512cd", "avx512bw", "avx512dq", "avx512vl"})),
]

NUMERICAL_TESTS: Final = ["test_explanation.py", "test_folded_network.py", "test_intent_model.py"]

# One of each kind of test that runs all of CLINC150's test rows is enough here.
CHOSEN: Final = "not test_rows or (add_up and words]) or clinc150]"

PRINT_PARTS: Final = f"from {__name__} import parts_of_a_network; print(parts_of_a_network())"


@pytest.fixture(params=KERNELS, ids=lambda kernel: kernel.name)
def kernel(request: pytest.FixtureRequest) -> Kernel:
    """Return a kernel that this processor can run and NumPy's OpenBLAS has."""
    wanted: Kernel = request.param
    missing = wanted.instructions - _instructions()
    if missing:
        pytest.skip(f"this processor cannot run the kernel {wanted.name}: it has no {', '.join(sorted(missing))}")
    chosen = re.search(r"^Core: (\S+)$", _run(wanted, "-c", "import numpy").stderr, re.MULTILINE)
    if chosen is None or chosen[1] != wanted.reported:
        pytest.skip(f"NumPy's BLAS has no kernel {wanted.name}: it reports {chosen and chosen[1]}")
    return wanted


def test_the_numerical_tests_of_the_predictor_pass_with_each_kernel(kernel: Kernel) -> None:
    tests = [str(Path(__file__).with_name(name)) for name in NUMERICAL_TESTS]
    run = _run(kernel, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", CHOSEN, *tests)
    assert run.returncode == 0, run.stdout + run.stderr
    assert " passed" in run.stdout


def test_the_parts_of_a_logit_are_the_same_to_the_last_bit_with_each_kernel(kernel: Kernel) -> None:
    run = _run(kernel, "-c", PRINT_PARTS)
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == parts_of_a_network()


def parts_of_a_network() -> str:
    """Return all digits of the parts of some logits of a network, and of the logits."""
    chance = np.random.default_rng(5)
    embedding, weight = (chance.standard_normal(shape).astype(np.float32) for shape in ((200, 67), (67, 9)))
    network = FoldedNetwork(embedding, weight, chance.standard_normal(9).astype(np.float32))
    bags = [chance.integers(0, 200, tokens).tolist() for tokens in (1, 2, 5, 13, 100, 1_500)]
    return repr([[*network.contributions(network.rows(bag), range(9))] for bag in bags])


def _instructions() -> frozenset[str]:
    """Return the instruction sets of this processor, or none if the system does not list them."""
    path = Path("/proc/cpuinfo")
    listed = re.search(r"^flags\s*:(.*)$", path.read_text() if path.exists() else "", re.MULTILINE)
    return frozenset(listed[1].split()) if listed else frozenset()


def _run(kernel: Kernel, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python with this kernel; OpenBLAS reports the name of its kernel on standard error."""
    chosen = {"OPENBLAS_CORETYPE": kernel.name, "OPENBLAS_NUM_THREADS": "1", "OPENBLAS_VERBOSE": "2"}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=os.environ | chosen,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
