"""TorchServe's handler for intent models; ``intentctl export --torchserve`` puts this file into each archive.

It runs in TorchServe's own Python, 3.11 or newer, with PyTorch and the standard library alone. TorchServe demands that
the file defines one class.

A request is one document (``data``, or ``body``, as HTTP names it), answered with ``{"result": label}``; or many
(``documents``: a JSON list of ``{"document": text, "k": number}``), answered with ``{"results": [...]}`` in the same
order, each ``{"result": label, "score": probability, "best": [[label, probability], ...]}``. In the place of what
cannot be answered stands ``{"code": 400 or 500, "type": "PredictionException", "message": text}``, as TorchServe itself
writes errors. Over HTTP that code is also the status of the request; over gRPC TorchServe 0.12 has no way to tell it.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor
from torch.nn import functional

# In an archive this module lies beside the handler, in a folder of its own.
from predictor.tokenizer import TokenizerName, tokenizer

_BAD_REQUEST: Final = 400
_FAILED: Final = 500


class IntentHandler:
    """Vocabulary, network and labels of one model. TorchServe calls it from one thread."""

    def initialize(self, context: Any) -> None:
        """Load the model from the folder that TorchServe has unpacked the archive into."""
        folder = Path(context.system_properties["model_dir"])
        vocabulary = json.loads((folder / "vocabulary.json").read_text("utf-8"))
        classes = json.loads((folder / "manifest.json").read_text("utf-8"))["classes"]
        self._indices: dict[str, int] = vocabulary["indices"]
        self._default: int | None = vocabulary["default_index"]
        self._tokenize = tokenizer(TokenizerName(vocabulary["tokenizer"]))
        self._labels: list[str] = [classes[str(index)] for index in range(len(classes))]
        # The networks are small: more threads would only wait for each other.
        torch.set_num_threads(1)
        state = torch.load(folder / "model.pth", map_location="cpu", weights_only=True)
        self._embedding, self._weight, self._bias = _folded(state)

    def handle(self, data: Sequence[Mapping[str, Any]], context: Any) -> list[str]:
        """Return the answer to each request, as JSON text, from one pass through the network."""
        described = [context.get_request_header(index, "describe") == "True" for index in range(len(data))]
        asked = [[] if describe else _questions(request) for request, describe in zip(data, described, strict=True)]
        known = [questions for questions in asked if not isinstance(questions, str)]
        answers = iter(self._answers(list(itertools.chain.from_iterable(known))))
        replies: list[Any] = []
        for request, questions, describe in zip(data, asked, described, strict=True):
            if describe:
                replies.append(self.describe_handle())
            elif isinstance(questions, str):
                replies.append(_error(_BAD_REQUEST, questions))
            elif "documents" in request:
                replies.append({"results": list(itertools.islice(answers, len(questions)))})
            else:
                replies.append(_label_alone(next(answers)))
        for index, reply in enumerate(replies):
            if "code" in reply:
                context.set_response_status(code=reply["code"], phrase=reply["message"], idx=index)
        return [json.dumps(reply) for reply in replies]

    def describe_handle(self) -> dict[str, Any]:
        """Return what TorchServe tells of the model as its customized metadata."""
        return {"documents": True, "labels": len(self._labels)}

    def _answers(self, questions: Sequence[tuple[str, int]]) -> Iterator[dict[str, Any]]:
        """Yield the answer to each document, with the ``k`` best labels."""
        if not questions:
            return
        logits = self._logits([self._encode(document) for document, _ in questions])
        finite = torch.isfinite(logits).all(dim=1).tolist()
        winners = logits.argmax(dim=1, keepdim=True)
        exponentials = torch.exp(logits - logits.gather(1, winners))
        scores = exponentials.sum(dim=1, keepdim=True).reciprocal()
        for row, (_, k) in enumerate(questions):
            if finite[row]:
                yield self._answer(int(winners[row]), float(scores[row]), exponentials[row], k)
            else:
                yield _error(_FAILED, "the model's answer is not a number; train it again")

    def _answer(self, winner: int, score: float, exponentials: Tensor, k: int) -> dict[str, Any]:
        best: list[tuple[str, float]] = []
        if k:
            # Of equal scores the first comes first.
            values, order = torch.sort(exponentials, descending=True, stable=True)
            ranked = zip(order[:k].tolist(), values[:k].tolist(), strict=True)
            best = [(self._labels[index], value * score) for index, value in ranked]
        return {"result": self._labels[winner], "score": score, "best": best}

    def _encode(self, document: str) -> list[int]:
        """Return the indices of the document's tokens; without a default index unknown ones are left out."""
        found = [self._indices.get(token, self._default) for token in self._tokenize(document)]
        return [index for index in found if index is not None]

    def _logits(self, bags: Sequence[Sequence[int]]) -> Tensor:
        """Return the logits of each document: float64, shape [documents, classes]."""
        tokens = torch.tensor(list(itertools.chain.from_iterable(bags)), dtype=torch.int64)
        begins = torch.tensor([0, *itertools.accumulate(len(bag) for bag in bags[:-1])])
        with torch.inference_mode():
            # The mean of no tokens is zero.
            means = functional.embedding_bag(tokens, self._embedding, begins, mode="mean")
            return torch.addmm(self._bias, means, self._weight).double()


def _folded(state: Mapping[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Return embedding, weight and bias of a network whose layers have nothing between them: one layer does as well."""
    layers = [
        (state[f"fc{number}.weight"].float().double().T, state[f"fc{number}.bias"].float().double())
        for number in range(1, 1 + sum(name.endswith(".bias") for name in state))
    ]
    weight, bias = layers[0]
    for turned, addend in layers[1:]:
        weight, bias = weight @ turned, bias @ turned + addend
    return state["embedding.weight"].float(), weight.float(), bias.float()


def _questions(request: Mapping[str, Any]) -> list[tuple[str, int]] | str:
    """Return the documents of a request with the numbers of best labels, or in plain words what is wrong with it."""
    if "documents" in request:
        return _listed(request["documents"])
    document = _text(request.get("data", request.get("body")))
    return "the input data must be one document in UTF-8" if document is None else [(document, 0)]


def _listed(value: object) -> list[tuple[str, int]] | str:
    wrong = 'the input documents must be a JSON list of {"document": text, "k": number}'
    text = _text(value)
    try:
        # TorchServe itself has parsed what came as application/json.
        entries = value if text is None else json.loads(text)
    except (ValueError, RecursionError):
        return wrong
    if not isinstance(entries, list):
        return wrong
    questions: list[tuple[str, int]] = []
    for entry in entries:
        match entry:
            case {"document": str() as document, "k": int() as k} if k >= 0:
                questions.append((document, k))
            case {"document": str() as document} if "k" not in entry:
                questions.append((document, 0))
            case _:
                return wrong
    return questions


def _text(value: object) -> str | None:
    """Return text that came as text or as UTF-8; ``None`` for anything else."""
    if isinstance(value, bytes | bytearray):
        try:
            return value.decode("utf-8")
        except UnicodeDecodeError:
            return None
    return value if isinstance(value, str) else None


def _label_alone(answer: dict[str, Any]) -> dict[str, Any]:
    return answer if "code" in answer else {"result": answer["result"]}


def _error(code: int, message: str) -> dict[str, Any]:
    return {"code": code, "type": "PredictionException", "message": message}
