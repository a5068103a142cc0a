"""Program that serves batches with the handlers of unpacked archives, each in a separate process as in TorchServe.

Each input line has a folder and batches; each output line has the answers. A worker is forked for each line, because
torch takes long to load. The worker imports only from the folder, torch and the standard library.
"""

from __future__ import annotations

import base64
import importlib
import inspect
import json
import os
import sys
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch


class Context:
    """Context that TorchServe gives a handler: the headers of the requests of one batch, and their statuses."""

    def __init__(self, folder: str) -> None:
        self.system_properties = {"model_dir": folder}
        self.headers: Sequence[Mapping[str, str]] = ()
        self.statuses: dict[int, list[Any]] = {}

    def get_request_header(self, idx: int, key: str) -> str | None:
        return self.headers[idx].get(key)

    def set_response_status(self, code: int = 200, phrase: str = "", idx: int = 0) -> None:
        self.statuses[idx] = [code, phrase]


def handled(folder: str, batches: Sequence[Sequence[Mapping[str, Mapping[str, str]]]]) -> dict[str, Any]:
    """Return the replies of the archive's handler to each batch, and the files that it was imported from."""
    os.chdir(folder)
    sys.path.insert(0, folder)
    name = json.loads(Path("MAR-INF/MANIFEST.json").read_text())["model"]["handler"].removesuffix(".py")
    module = importlib.import_module(name)
    classes = [value for _, value in inspect.getmembers(module, inspect.isclass) if value.__module__ == name]
    (kind,) = classes
    handler: Any = kind()
    context = Context(folder)
    handler.initialize(context)
    replies = []
    for batch in batches:
        context.headers = [request["headers"] for request in batch]
        context.statuses = {}
        data = [
            {key: bytearray(base64.b64decode(value)) for key, value in request["input"].items()} for request in batch
        ]
        replies.append({"answers": handler.handle(data, context), "statuses": context.statuses})
    ours = [module, *(value for key, value in sys.modules.items() if key.startswith("predictor"))]
    return {"replies": replies, "imported": [value.__file__ for value in ours]}


def main() -> None:
    assert torch.__version__
    for line in sys.stdin:
        worker = os.fork()
        if worker == 0:
            try:
                told = handled(**json.loads(line))
            except BaseException:  # noqa: BLE001 - reported to the test
                told = {"failure": traceback.format_exc()}
            print(json.dumps(told), flush=True)  # noqa: T201
            os._exit(0)
        os.waitpid(worker, 0)


if __name__ == "__main__":
    main()
