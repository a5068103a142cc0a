"""Triton 2.51: the server inside the nvidia-pytriton wheel, its Python backend, dynamic batching of up to 64."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.results import Part
from benchmarks.systems.base import MODEL_SETTINGS, Running, System, wait_until_right
from benchmarks.systems.open_inference import MODEL_NAME, infer_call
from peers.triton import triton, triton_environment

_MODEL: Final = Path(__file__).parent / "programs" / "triton_model.py"
_CONFIGURATION: Final = f"""name: "{MODEL_NAME}"
backend: "python"
max_batch_size: 64
input [ {{ name: "TEXT" data_type: TYPE_STRING dims: [ 1 ] }} ]
output [ {{ name: "LABEL" data_type: TYPE_STRING dims: [ 1 ] }} ]
instance_group [ {{ kind: KIND_CPU count: 1 }} ]
dynamic_batching {{ max_queue_delay_microseconds: 0 }}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Triton(System):
    """One hop from a server in C++ to a model in Python."""

    def install(self) -> None:
        """Create the environment, with a stub for this Python version beside Triton's Python backend."""
        triton_environment()

    @contextmanager
    def start(self, workplace: Path) -> Iterator[Running]:
        """Serve the model."""
        server = triton(workplace, {MODEL_NAME: (_CONFIGURATION, _MODEL)}, MODEL_SETTINGS)
        with server.running() as program:
            call = infer_call(server.address, [1, 1])
            wait_until_right(call, [program])
            yield Running(call, [program.process.pid])


TRITON: Final = Triton(name="triton", title="Triton 2.51", parts=frozenset({Part.UNARY, Part.CONNECTIONS}))
