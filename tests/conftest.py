from __future__ import annotations

import functools
import hashlib
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# No test asserts a time, however slow the machine; and the CI gate checks the same examples each time.
settings.register_profile(
    "project",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize=os.environ.get("CI") == "true",
)
settings.load_profile("project")

FIGURE = "figure"
_STARTED = pytest.StashKey[float]()

ROOT = Path(__file__).resolve().parent.parent
SHARED = Path(os.environ.get("INTENT_SHARED", ROOT.parent / "shared"))
"""Folder of recorded cases, data sets and tools that are not part of the project; set INTENT_SHARED to move it."""


def shared(relative: str) -> Path:
    """Return a path below the shared data, or skip the test and say what is missing."""
    path = SHARED / relative
    if not path.exists():
        pytest.skip(f"INTENT_SHARED has no {relative}", allow_module_level=True)
    return path


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_STARTED] = time.monotonic()


def pytest_report_header(config: pytest.Config) -> str:
    # pytest runs without its cache after `-p no:cacheprovider`.
    cache = getattr(config, "cache", None)
    seconds = None if cache is None else cache.get(_key_of(config), None)
    took = "not known yet" if seconds is None else f"{seconds // 60:.0f} min {seconds % 60:.0f} s"
    return f"time of the last complete run of these tests: {took}"


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    is_worker = hasattr(session.config, "workerinput")
    cache = getattr(session.config, "cache", None)
    if cache is not None and not is_worker and exitstatus in {pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED}:
        cache.set(_key_of(session.config), time.monotonic() - session.config.stash[_STARTED])


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Begin with the tests of the longest time limits where several processes share the tests.

    A long test that began last would leave the other processes without work.
    """
    if hasattr(config, "workerinput"):
        items.sort(key=_time_limit, reverse=True)


def _time_limit(item: pytest.Item) -> float:
    mark = item.get_closest_marker("timeout")
    return float(mark.args[0]) if mark is not None and mark.args else 0.0


def _key_of(config: pytest.Config) -> str:
    chosen = " ".join(map(str, config.invocation_params.args))
    return f"intent/seconds/{hashlib.sha256(chosen.encode()).hexdigest()[:16]}"


@pytest.fixture
def figure(record_property: Callable[[str, object], None]) -> Callable[[str], None]:
    """Record a measured figure; the last lines of the run repeat it."""
    return functools.partial(record_property, FIGURE)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reports = [*terminalreporter.getreports("passed"), *terminalreporter.getreports("failed")]
    figures = [value for report in reports for name, value in report.user_properties if name == FIGURE]
    if figures:
        terminalreporter.section("figures")
        for value in figures:
            terminalreporter.write_line(str(value))
