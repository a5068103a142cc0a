"""An ASGI application for tests, which reports the request in its answer."""

from __future__ import annotations

import asyncio
import json
from typing import Any


class Web:
    """Application that answers with a summary of the request; some paths have other behaviour."""

    def __init__(self) -> None:
        self.scopes: list[Any] = []
        self.begun = asyncio.Event()
        self.left = asyncio.Event()
        self.may_answer = asyncio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.scopes.append(scope)
        path = scope["path"]
        if path == "/fail":
            raise ZeroDivisionError
        if path == "/silent":
            return
        if path == "/early":
            await _answer(send, 403, b"no")
            return
        body = b""
        more = True
        while more:
            event = await receive()
            if event["type"] == "http.disconnect":
                self.left.set()
                return
            body += event.get("body", b"")
            more = event.get("more_body", False)
        if path == "/wait":
            self.begun.set()
            leaves = asyncio.ensure_future(receive())
            may = asyncio.ensure_future(self.may_answer.wait())
            await asyncio.wait({leaves, may}, return_when=asyncio.FIRST_COMPLETED)
            if leaves.done():
                self.left.set()
                return
            leaves.cancel()
        if path == "/large":
            await _answer(send, 200, b"x" * int(scope["query_string"]))
            return
        told = {"method": scope["method"], "path": path, "size": len(body), "http": scope["http_version"]}
        # The header has no meaning in HTTP/2, and is not sent there.
        useless = [(b"connection", b"close")] if scope["http_version"] == "2" else []
        await _answer(send, 200, json.dumps(told).encode(), *useless)


async def _answer(send: Any, status: int, body: bytes, *more: tuple[bytes, bytes]) -> None:
    headers = [(b"Content-Length", b"%d" % len(body)), (b"x", b"y"), *more]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    half = len(body) // 2
    await send({"type": "http.response.body", "body": body[:half], "more_body": True})
    await send({"type": "http.response.body", "body": body[half:]})
