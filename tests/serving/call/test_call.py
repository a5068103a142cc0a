from __future__ import annotations

import asyncio
import uuid

import pytest

from serving.call.call import Call, current_call, enter_call, request_id_from
from serving.call.deadline import Deadline


@pytest.mark.parametrize("offered", ["a", "0", "-", ".", "_", "9f8e-7.d_C", "x" * 128])
def test_a_request_id_that_is_fit_for_a_log_line_is_kept(offered: str) -> None:
    assert request_id_from(offered) == offered


@pytest.mark.parametrize(
    "offered",
    [None, "", b"a", "a\n", "\na", "a b", "a\x1b[31m", "a\0", "x" * 129, "é", "ａ", "١", "a/b", 'a"b', "{a}", "a=b"],
    ids=ascii,
)
def test_any_other_is_replaced_by_a_new_one(offered: str | bytes | None) -> None:
    first, second = request_id_from(offered), request_id_from(offered)
    assert uuid.UUID(first) != uuid.UUID(second)


async def test_tasks_know_the_call_they_serve_and_no_other() -> None:
    together = asyncio.Barrier(5)

    async def below() -> str:
        return current_call().request_id

    async def serve(name: str) -> tuple[str, str]:
        enter_call(Call(name, Deadline.after(1.0)))
        await together.wait()
        return current_call().request_id, await asyncio.create_task(below())

    names = [f"call-{number}" for number in range(5)]
    assert await asyncio.gather(*map(serve, names)) == [(name, name) for name in names]
    with pytest.raises(LookupError):
        current_call()
