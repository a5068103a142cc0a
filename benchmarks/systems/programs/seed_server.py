"""The book's way of serving, re-created: grpcio thread pools, and a model that is loaded for each request.

``python -m ... predictor PORT`` and ``python -m ... frontend PORT PORT_OF_PREDICTOR``. The book's predictor stores
models under one key and looks them up under another, so its cache never hits. This program does the same, with
PyTorch's own reader and network. Vocabulary and manifest are read by this project's readers, which are faster than the
book's.
"""

from __future__ import annotations

import json
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import torch

from peers.inside.shared_model import MODELS_VARIABLE
from predictor.model.network import IntentNetwork
from predictor.model.tokenizer import basic_english
from predictor.model.vocabulary import read_vocabulary
from serving.domain.manifest import Manifest
from serving.stubs import prediction_service_pb2 as pb
from serving.stubs import prediction_service_pb2_grpc as pb_grpc

_THREADS = 10


def _predict(request: pb.PredictorPredictRequest, _: object) -> pb.PredictorPredictResponse:
    """Load the model, answer, and discard the model."""
    folder = Path(os.environ[MODELS_VARIABLE]) / request.runId
    manifest = Manifest.parse((folder / "manifest.json").read_bytes())
    vocabulary = read_vocabulary((folder / "vocab.pth").read_bytes())
    weights = torch.load(folder / "model.pth", weights_only=True)
    network = IntentNetwork.from_arrays({name: weight.numpy() for name, weight in weights.items()})
    unknown = vocabulary.default_index or 0
    found = [vocabulary.indices.get(token, unknown) for token in basic_english(request.document)]
    with torch.no_grad():
        logits = network(torch.tensor(found), torch.tensor([0]))
    label = manifest.labels[int(logits.argmax(1))]
    return pb.PredictorPredictResponse(response=json.dumps({"result": label}))


def _predictor() -> grpc.GenericRpcHandler:
    method = grpc.unary_unary_rpc_method_handler(
        _predict,
        request_deserializer=pb.PredictorPredictRequest.FromString,
        response_serializer=pb.PredictorPredictResponse.SerializeToString,
    )
    return grpc.method_handlers_generic_handler("prediction.Predictor", {"PredictorPredict": method})


def _frontend(predictor: str) -> grpc.GenericRpcHandler:
    stub = pb_grpc.PredictorStub(grpc.insecure_channel(predictor))

    def forward(request: pb.PredictRequest, _: object) -> pb.PredictResponse:
        question = pb.PredictorPredictRequest(runId=request.runId, document=request.document)
        return pb.PredictResponse(response=stub.PredictorPredict(question).response)

    method = grpc.unary_unary_rpc_method_handler(
        forward,
        request_deserializer=pb.PredictRequest.FromString,
        response_serializer=pb.PredictResponse.SerializeToString,
    )
    return grpc.method_handlers_generic_handler("prediction.PredictionService", {"Predict": method})


def _main(role: str, port: str, *behind: str) -> None:
    torch.set_num_threads(1)
    server = grpc.server(ThreadPoolExecutor(_THREADS))
    handler = _frontend(f"127.0.0.1:{behind[0]}") if role == "frontend" else _predictor()
    server.add_generic_rpc_handlers((handler,))
    server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    server.wait_for_termination()


if __name__ == "__main__":
    _main(*sys.argv[1:])
