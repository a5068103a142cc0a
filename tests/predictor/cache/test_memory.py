from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from predictor.cache.memory import default_budget, memory_limit

GIB = 1 << 30

Limit = Callable[..., int]


@pytest.fixture
def limit_of(tmp_path: Path) -> Limit:
    """Return the limit of a process with fake cgroups: the text of ``/proc/self/cgroup`` and the cgroups' files."""

    def limit(own: str, **files: str) -> int:
        (tmp_path / "self").write_text(own)
        for name, text in files.items():
            path = name.replace("__", "/").replace("memory_max", "memory.max")
            file = tmp_path / "root" / path.replace("memory_in_bytes", "memory.limit_in_bytes")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        return memory_limit(tmp_path / "self", tmp_path / "root")

    return limit


@pytest.mark.parametrize(
    ("own", "files"),
    [
        ("0::/\n", {"memory_max": f"{GIB}\n"}),
        ("0::/pods/one\n", {"pods__one__memory_max": f"{GIB}\n", "pods__memory_max": f"{8 * GIB}\n"}),
        ("0::/pods/one\n", {"pods__one__memory_max": "max\n", "pods__memory_max": f"{GIB}\n"}),
        ("0::/docker/its-name-on-the-host\n", {"memory_max": f"{GIB}\n"}),
        ("5:cpu,cpuacct:/a\n4:memory:/a\n", {"memory__a__memory_in_bytes": f"{GIB}\n"}),
        ("4:memory:/docker/its-name-on-the-host\n0::/\n", {"memory__memory_in_bytes": f"{GIB}\n"}),
    ],
    ids=["v2", "nested", "of the one above", "container", "v1", "container v1"],
)
def test_the_limit_is_the_least_of_the_cgroups(own: str, files: dict[str, str], limit_of: Limit) -> None:
    assert limit_of(own, **files) == GIB


@pytest.mark.parametrize(
    ("own", "files"),
    [
        ("", {}),
        ("0::/a\n", {"a__memory_max": "max\n"}),
        ("4:memory:/\n", {"memory__memory_in_bytes": "9223372036854771712\n"}),
    ],
    ids=["none", "v2", "v1"],
)
def test_without_a_limit_it_is_the_memory_of_the_machine(own: str, files: dict[str, str], limit_of: Limit) -> None:
    meminfo = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    assert limit_of(own, **files) == pytest.approx(int(meminfo["MemTotal"].split()[0]) << 10, rel=0.05)


def test_models_get_a_share_that_leaves_room_for_the_rest() -> None:
    assert default_budget(2 * GIB) == int(2 * GIB * 0.6)
    assert default_budget(512 << 20) == 112 << 20
    assert default_budget(100 << 20) == 64 << 20
