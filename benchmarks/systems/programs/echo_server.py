"""A grpcio asyncio server on uvloop whose ``Predict`` answers with the document. ``python -m ... PORT``."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable

import grpc
import uvloop

from serving.stubs import prediction_service_pb2 as pb

Predict = Callable[[pb.PredictRequest, object], Awaitable[pb.PredictResponse]]


async def serve(predict: Predict, port: str) -> None:
    """Serve until the process is stopped."""
    server = grpc.aio.server()
    method = grpc.unary_unary_rpc_method_handler(
        predict,
        request_deserializer=pb.PredictRequest.FromString,
        response_serializer=pb.PredictResponse.SerializeToString,
    )
    service = grpc.method_handlers_generic_handler("prediction.PredictionService", {"Predict": method})
    server.add_generic_rpc_handlers((service,))
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await server.wait_for_termination()


async def _echo(request: pb.PredictRequest, _: object) -> pb.PredictResponse:
    return pb.PredictResponse(response=request.document)


if __name__ == "__main__":
    uvloop.run(serve(_echo, sys.argv[1]))
