from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from typing import Any

import pytest

SCRIPT = """
import logging, sys, structlog
from serving.call.call import Call, enter_call
from serving.call.deadline import Deadline
from serving.telemetry.logs import configure_logs

configure_logs("predictor", {level!r}, {log_format!r})
log = structlog.get_logger()
enter_call(Call("request-1", Deadline.after(1.0)))
log.debug("a detail")
log.info("model loaded", model="a", note="two\\nlines \\x1b[31mred é")
logging.getLogger("a.library").warning("its %s", "words")
try:
    1 / 0
except ZeroDivisionError as error:
    log.error("call", exc_info=error)
print("an answer")
"""


def run(level: str = "info", log_format: str = "auto") -> subprocess.CompletedProcess[str]:
    script = SCRIPT.format(level=level, log_format=log_format)
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)


def test_lines_are_json_objects_on_standard_error_that_name_service_level_time_and_request() -> None:
    ended = run()
    assert ended.stdout == "an answer\n"
    lines: list[dict[str, Any]] = [json.loads(line) for line in ended.stderr.splitlines()]
    assert [line["event"] for line in lines] == ["model loaded", "its words", "call"]
    assert [line["level"] for line in lines] == ["info", "warning", "error"]
    assert {line["service"] for line in lines} == {"predictor"}
    assert {line["request_id"] for line in lines} == {"request-1"}
    assert all(line["timestamp"].endswith("Z") for line in lines)
    assert (lines[0]["model"], lines[0]["note"]) == ("a", "two\nlines \x1b[31mred é")
    assert "ZeroDivisionError" in lines[2]["exception"]


def test_nothing_in_a_line_can_make_another_line_or_colour_a_terminal() -> None:
    ended = run(log_format="json")
    assert len(ended.stderr.splitlines()) == 3
    assert "\x1b" not in ended.stderr


HOSTILE = "a\x1b]0;owned\x07b\x1b[2J\x9b31m\u202e\x7f\x00\n2026 [error] forged"
FOREIGN = """
import logging, structlog
from pathlib import Path
from serving.telemetry.logs import configure_logs

class Named:
    def __repr__(self):
        return {hostile!r}

configure_logs("frontend", "info", {log_format!r})
log = structlog.get_logger()
log.info("first", reason={hostile!r})
log.info({hostile!r}, plain="größe")
log.info("nested", reasons=[{hostile!r}], by_name={{{hostile!r}: {hostile!r}}}, path=Path({hostile!r}), named=Named())
logging.getLogger({hostile!r}).warning("its %s", {hostile!r})
try:
    raise ValueError({hostile!r})
except ValueError as error:
    log.error("last", exc_info=error)
"""


@pytest.mark.parametrize("log_format", ["console", "json"])
def test_what_others_wrote_does_not_control_a_terminal(log_format: str) -> None:
    script = FOREIGN.format(hostile=HOSTILE, log_format=log_format)
    environment = {**os.environ, "NO_COLOR": "1", "PYTHONIOENCODING": "utf-8"}
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True, timeout=60, env=environment)
    written = re.sub(r"\x1b\[[0-9;]*m", "", ended.stderr.decode())
    lines = written.split("\n")
    assert [
        character for line in lines for character in line if not character.isprintable() and character != "\x7f"
    ] == []
    assert "owned" in lines[0]
    before_the_traceback = lines[: next(number for number, line in enumerate(lines) if "last" in line)]
    assert len(before_the_traceback) == 4
    if log_format == "console":
        assert r"\x1b]0;owned\x07b" in lines[1]
        assert "\x7f" not in written
        assert "größe" in written


def test_the_level_decides_what_is_written_of_libraries_too() -> None:
    events = [json.loads(line)["event"] for line in run(level="error").stderr.splitlines()]
    assert events == ["call"]
    events = [json.loads(line)["event"] for line in run(level="debug").stderr.splitlines()]
    assert events == ["a detail", "model loaded", "its words", "call"]


def test_lines_of_a_call_that_is_traced_name_its_trace() -> None:
    span = "type('FakeSpan', (), {'trace_id': '4bf92f3577b34da6a3ce929d0e0e4736'})()"
    script = SCRIPT.format(level="info", log_format="json").replace("after(1.0))", f"after(1.0), span={span})")
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    lines = [json.loads(line) for line in ended.stderr.splitlines()]
    assert [line["trace_id"] for line in lines] == ["4bf92f3577b34da6a3ce929d0e0e4736"] * 3
    assert all("trace_id" not in line for line in run(log_format="json").stderr.splitlines())


def test_a_person_at_a_terminal_gets_lines_to_read() -> None:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT.format(level="warning", log_format="auto")],
        stdout=subprocess.DEVNULL,
        stderr=theirs,
    )
    os.close(theirs)
    written = b""
    try:
        while part := os.read(ours, 65536):
            written += part
    except OSError:
        # The other side has ended, which a terminal reports as an error.
        pass
    os.close(ours)
    assert process.wait(timeout=60) == 0
    assert b"its words" in written
    assert b'{"' not in written
