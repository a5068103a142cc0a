from __future__ import annotations

import os
from pathlib import Path

import pytest

from serving.workers.cores import usable_cores

BOUND = len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("own", "files"),
    [
        ("0::/\n", {"cpu.max": "100000 100000\n"}),
        ("0::/\n", {"cpu.max": "150000 100000\n"}),
        ("0::/\n", {"cpu.max": "20000 100000\n"}),
        ("0::/pods/one\n", {"pods/one/cpu.max": "max 100000\n", "pods/cpu.max": "100000 100000\n"}),
        ("0::/docker/its-name-on-the-host\n", {"cpu.max": "100000 100000\n"}),
        (
            "5:cpu,cpuacct:/a\n",
            {"cpu,cpuacct/a/cpu.cfs_quota_us": "100000\n", "cpu,cpuacct/a/cpu.cfs_period_us": "100000\n"},
        ),
        ("5:cpu,cpuacct:/a\n", {"cpu/cpu.cfs_quota_us": "100000\n", "cpu/cpu.cfs_period_us": "100000\n"}),
    ],
    ids=["one", "one and a half", "a fifth", "of the one above", "container", "v1", "container v1"],
)
def test_a_container_gets_as_many_as_it_may_use_and_one_at_least(
    own: str, files: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "self").write_text(own)
    for name, text in files.items():
        file = tmp_path / "root" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    assert usable_cores(tmp_path / "root", tmp_path / "self") == 1


@pytest.mark.parametrize(
    ("own", "files"),
    [
        ("", {}),
        ("0::/a\n", {"a/cpu.max": "max 100000\n"}),
        ("0::/a\n", {"a/cpu.max": "99900000 100000\n"}),
        ("3:cpu:/\n", {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}),
    ],
    ids=["none", "v2", "more than there are", "v1"],
)
def test_without_a_limit_it_is_the_cores_that_the_process_is_bound_to(
    own: str, files: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "self").write_text(own)
    for name, text in files.items():
        file = tmp_path / "root" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    assert usable_cores(tmp_path / "root", tmp_path / "self") == BOUND


def test_of_this_machine_it_is_one_at_least() -> None:
    assert 1 <= usable_cores() <= BOUND
