"""Serves batches with the handler of an unpacked archive, as a worker of TorchServe does, in a process of its own.

The archive's folder is the one place beside torch and the standard library that anything is imported from.
"""

from __future__ import annotations

import base64
import importlib
import inspect
import json
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any, cast


class Context:
    """What TorchServe gives a handler: of the requests of one batch, their headers, and a place for their statuses."""

    def __init__(self, folder: str) -> None:
        self.system_properties = {"model_dir": folder}
        self.headers: Sequence[Mapping[str, str]] = ()
        self.statuses: dict[int, list[Any]] = {}

    def get_request_header(self, idx: int, key: str) -> str | None:
        return self.headers[idx].get(key)

    def set_response_status(self, code: int = 200, phrase: str = "", idx: int = 0) -> None:
        self.statuses[idx] = [code, phrase]


def main() -> None:
    folder = os.getcwd()  # noqa: PTH109 - the worker's folder, as text
    with open("MAR-INF/MANIFEST.json", encoding="utf-8") as file:  # noqa: PTH123
        name = json.load(file)["model"]["handler"].removesuffix(".py")
    module = importlib.import_module(name)
    classes = [value for _, value in inspect.getmembers(module, inspect.isclass) if value.__module__ == module.__name__]
    (kind,) = classes
    handler: Any = kind()
    context = Context(folder)
    handler.initialize(context)
    replies = []
    for batch in json.load(sys.stdin):
        context.headers = [request.get("headers", {}) for request in batch]
        context.statuses = {}
        data = [
            {key: bytearray(base64.b64decode(value)) for key, value in request["input"].items()} for request in batch
        ]
        replies.append({"answers": handler.handle(data, context), "statuses": context.statuses})
    imported = [cast("Any", value).__file__ for key, value in sys.modules.items() if key.startswith("predictor")]
    json.dump({"replies": replies, "imported": imported}, sys.stdout)


if __name__ == "__main__":
    main()
