"""The parser of the README's blocks."""

from __future__ import annotations

import pytest

from tests.end_to_end.readme.blocks import Command, Program, Session, UnknownBlock, blocks_of
from tests.end_to_end.readme.figures import comparable, lines_in


def test_sessions_and_programs_are_found_in_order() -> None:
    session = "```console\n$ one\n$ two <<EOF\nx\nEOF\nprinted\n\nmore\n$ three \\\n  four\n```\n"
    program = "```python\nprint(1)\n```\n\n```text\n1\n```\n"
    assert blocks_of(f"a\n\n{session}\n{program}") == [
        Session(
            [Command("one", ""), Command("two <<EOF\nx\nEOF", "printed\n\nmore\n"), Command("three \\\n  four", "")]
        ),
        Program("print(1)\n", "1\n"),
    ]


@pytest.mark.parametrize(
    "text",
    [
        "    intentctl models\n",
        "```\n$ ls\n```\n",
        "```sh\nls\n```\n",
        "```python\nprint(1)\n```\n",
        "```console\nls\n```\n",
    ],
)
def test_a_block_that_cannot_be_run_is_refused(text: str) -> None:
    with pytest.raises(UnknownBlock):
        blocks_of(text)


def test_only_what_varies_is_replaced() -> None:
    printed = (
        "at 2026-11-30T11:09:38.711114Z at /home/me/clone/.venv: score 0.99999297, \x1b[1m7\x1b[0m of 8, 0.974\r\n"
    )
    assert comparable(printed) == "at MOMENT at CLONE/.venv: score 1, 7 of 8, 0.974"


def test_a_progress_bar_is_what_is_left_of_it() -> None:
    assert comparable("epoch 1 ━╺━\r\x1b[2Kepoch 2 ━━━━ 0:00:02\r\n") == comparable("epoch 2 ━━━━━━━ 0:01:00\n")


def test_which_of_two_processes_logs_first_does_not_matter() -> None:
    one, other = "2026-11-30T11:09:38Z a", "2026-11-30T11:09:39Z b"
    assert comparable(f"{one}\nready\n{other}\n") == comparable(f"{other}\n{one}\nready\n")
    assert comparable(f"{one}\nready\n") != comparable(f"{other}\nready\n")


def test_a_frontend_that_is_ready_first_says_so_without_effect() -> None:
    printed = "2026-11-30T11:09:38Z [info     ] ready\r\n"
    waited = "2026-11-30T11:09:37Z [warning  ] \x1b[1mserver is unavailable\x1b[0m address=127.0.0.1:51002\r\n"
    assert comparable(waited + printed) == comparable(printed)
    assert lines_in(waited + printed + "part of") == 1
