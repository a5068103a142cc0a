"""The echo server, but its ``Predict`` calls another through an asyncio stub. ``python -m ... PORT PORT_BEHIND``."""

from __future__ import annotations

import sys

import grpc
import uvloop

from benchmarks.systems.programs.echo_server import serve
from serving.stubs import prediction_service_pb2 as pb
from serving.stubs import prediction_service_pb2_grpc as pb_grpc


async def _main(port: str, behind: str) -> None:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{behind}") as channel:
        stub = pb_grpc.PredictionServiceStub(channel)

        async def forward(request: pb.PredictRequest, _: object) -> pb.PredictResponse:
            return await stub.Predict(request)

        await serve(forward, port)


if __name__ == "__main__":
    uvloop.run(_main(sys.argv[1], sys.argv[2]))
