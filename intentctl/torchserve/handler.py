"""TorchServe's handler for intent models; ``intentctl export --torchserve`` puts this file into each archive.

The handler runs in TorchServe's own Python, 3.11 or newer, with only PyTorch and the standard library. TorchServe
requires that the file defines one class.

A request is one document (``data``, or ``body`` in HTTP's terms), answered with ``{"result": label}``; or many, in
``documents``: a JSON list of ``{"document": text, "k": number, "threshold": number, "explain": [label, ...]}``, in
which only the text is required. These are answered with ``{"results": [...]}`` in the same order, each
``{"result": label, "score": probability, "best": [[label, probability], ...], "fallback": null}``. If the answer is the
fallback label, ``fallback`` is ``{"best": {"label": ..., "score": ...}, "threshold": ...}``. An ``explanation`` is
added on request. The fields have the same meaning as in our own API. A request or document that cannot be answered gets
``{"code": number, "type": "PredictionException", "message": text}`` instead, which is how TorchServe itself writes
errors. Over HTTP, that code is also the status of the request; over gRPC, TorchServe 0.12 cannot transmit it.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor
from torch.nn import functional

# In an archive, these modules are in a folder beside the handler.
from predictor.model.layer_names import EMBEDDING, family_names
from predictor.model.tokenizer import Tokenizer

_BAD_REQUEST: Final = 400
_TOO_LARGE: Final = 413
_FAILED: Final = 500
_TOO_MUCH_AT_ONCE: Final = 503

_MOST_CONTRIBUTIONS: Final = 1 << 18
# TorchServe ends a worker whose answer to a batch is longer than max_response_size, 6,553,500 by default.
_MOST_BYTES: Final = 6_000_000

Encoded = tuple[list[str], list[str], list[int]]
"""Tokens of a document, its n-grams, and the indices of those tokens and n-grams that count."""


class IntentHandler:
    """Vocabulary, network and labels of one model. TorchServe calls the handler from one thread."""

    def initialize(self, context: Any) -> None:
        """Load the model from the folder into which TorchServe has unpacked the archive."""
        folder = Path(context.system_properties["model_dir"])
        vocabulary = _json_of(folder / "vocabulary.json")
        confidence = _json_of(folder / "confidence.json")
        classes = _json_of(folder / "manifest.json")["classes"]
        self._indices: dict[str, int] = vocabulary["indices"]
        self._default: int | None = vocabulary["default_index"]
        self._tokenizer = Tokenizer.parse(vocabulary["tokenizer"])
        self._temperature: float = confidence["temperature"]
        self._threshold: float = confidence["threshold"]
        self._fallback: str = confidence["fallback"]
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
        replies, texts = _within_bounds(replies)
        for index, reply in enumerate(replies):
            if "code" in reply:
                context.set_response_status(code=reply["code"], phrase=reply["message"], idx=index)
        return texts

    def describe_handle(self) -> dict[str, Any]:
        """Return what TorchServe reports as the customized metadata of the model."""
        return {"documents": True, "labels": len(self._labels)}

    def _answers(self, questions: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
        """Yield the answer to each question."""
        if not questions:
            return
        documents = [self._encode(question["document"]) for question in questions]
        logits = self._logits([bag for _, _, bag in documents]) / self._temperature
        finite = torch.isfinite(logits).all(dim=1).tolist()
        winners = logits.argmax(dim=1, keepdim=True)
        exponentials = torch.exp(logits - logits.gather(1, winners))
        scores = exponentials.sum(dim=1, keepdim=True).reciprocal()
        for row, (question, document) in enumerate(zip(questions, documents, strict=True)):
            if finite[row]:
                winner = int(winners[row])
                answer = self._answer(question, winner, float(scores[row]), exponentials[row])
                if question["explain"] is not None:
                    explained = self._explained(document, winner, question["explain"], exponentials[row])
                    answer = explained if "code" in explained else answer | explained
                yield answer
            else:
                yield _not_finite()

    def _answer(self, question: Mapping[str, Any], winner: int, score: float, exponentials: Tensor) -> dict[str, Any]:
        best: list[tuple[str, float]] = []
        if question["k"]:
            # A stable sort keeps equal scores in the order of their labels.
            values, order = torch.sort(exponentials, descending=True, stable=True)
            ranked = zip(order[: question["k"]].tolist(), values[: question["k"]].tolist(), strict=True)
            best = [(self._labels[index], value * score) for index, value in ranked]
        label = self._labels[winner]
        threshold = self._threshold if question["threshold"] is None else question["threshold"]
        fallback: dict[str, Any] | None = None
        if score < threshold and label != self._fallback:
            fallback = {"best": {"label": label, "score": score}, "threshold": threshold}
            label = self._fallback
            score = float(exponentials[self._labels.index(label)]) * score if label in self._labels else 0.0
        return {"result": label, "score": score, "best": best, "fallback": fallback}

    def _explained(self, document: Encoded, winner: int, asked: Sequence[str], exponentials: Tensor) -> dict[str, Any]:
        """Return the explanation of the best label and the requested ones, or an error that says what is wrong."""
        # If several outputs have one label, the largest is explained.
        largest = {self._labels[index]: index for index in exponentials.argsort(stable=True).tolist()}
        if not largest.keys() >= set(asked):
            return _error(_BAD_REQUEST, "the model has no such label to explain; request labels of its manifest")
        chosen = {**largest, self._labels[winner]: winner}
        classes = [chosen[label] for label in dict.fromkeys((self._labels[winner], *asked))]
        words, ngrams, bag = document
        tokens = words + [ngram for ngram in ngrams if ngram in self._indices]
        if len(tokens) * len(classes) > _MOST_CONTRIBUTIONS:
            return _error(
                _BAD_REQUEST, "the document is too long to explain so many labels; shorten it, or request fewer"
            )
        # Double precision, so that the parts add no rounding error to that of the logit.
        weight = self._weight[:, classes].double() / max(1, len(bag))
        # A matrix product may add up equal rows in different orders, so equal tokens share one row.
        distinct, places = torch.unique(torch.tensor(bag, dtype=torch.int64), return_inverse=True)
        parts = (self._embedding[distinct].double() @ weight).T[:, places]
        unknown = [index for index, word in enumerate(words) if word not in self._indices]
        labels = [
            {
                "label": self._labels[index],
                "logit": math.fsum((bias, *row)),
                "bias": bias,
                "contributions": self._for_each_token(row, words),
            }
            for index, row, bias in zip(classes, parts.tolist(), self._bias[classes].tolist(), strict=True)
        ]
        explanation = {"tokens": tokens, "unknown": unknown, "labels": labels, "temperature": self._temperature}
        return {"explanation": explanation}

    def _for_each_token(self, parts: Sequence[float], words: Sequence[str]) -> list[float]:
        """Return a part for each token: from ``parts``, or 0 for words that are left out."""
        rest = iter(parts)
        return [
            *(next(rest) if self._default is not None or word in self._indices else 0.0 for word in words),
            *rest,
        ]

    def _encode(self, document: str) -> Encoded:
        """Return tokens, n-grams and indices; unknown n-grams are left out, unknown tokens only without a default."""
        words = self._tokenizer.tokens(document)
        ngrams = self._tokenizer.ngrams(words)
        found = [self._indices.get(word, self._default) for word in words]
        found += map(self._indices.get, ngrams)
        return words, ngrams, [index for index in found if index is not None]

    def _logits(self, bags: Sequence[Sequence[int]]) -> Tensor:
        """Return the logits of each document: float64, shape [documents, classes]."""
        tokens = torch.tensor(list(itertools.chain.from_iterable(bags)), dtype=torch.int64)
        begins = torch.tensor([0, *itertools.accumulate(len(bag) for bag in bags[:-1])])
        with torch.inference_mode():
            # The mean of no tokens is zero.
            means = functional.embedding_bag(tokens, self._embedding, begins, mode="mean")
            return torch.addmm(self._bias, means, self._weight).double()


def _folded(state: Mapping[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Return embedding, weight and bias of a network whose layers fold into one, as nothing is between them."""
    names = family_names({name: tensor.shape for name, tensor in state.items()})
    layers = [
        (state[names[f"fc{number}.weight"]].float().double().T, state[names[f"fc{number}.bias"]].float().double())
        for number in range(1, 1 + len(names) // 2)
    ]
    weight, bias = layers[0]
    for turned, addend in layers[1:]:
        weight, bias = weight @ turned, bias @ turned + addend
    return state[names[EMBEDDING]].float(), weight.float(), bias.float()


def _questions(request: Mapping[str, Any]) -> list[dict[str, Any]] | str:
    """Return the question of a request for each document, or in plain words what is wrong with the request."""
    if "documents" in request:
        return _listed(request["documents"])
    document = _text(request.get("data", request.get("body")))
    return "the input data must be one document in UTF-8" if document is None else [_question({"document": document})]


def _listed(value: object) -> list[dict[str, Any]] | str:
    wrong = (
        'the input documents must be a JSON list of {"document": text, "k": number, "threshold": number from 0 to 1,'
        ' "explain": list of labels}'
    )
    text = _text(value)
    try:
        # TorchServe itself has already parsed a body of type application/json.
        entries = value if text is None else json.loads(text)
    except (ValueError, RecursionError):
        return wrong
    if not isinstance(entries, list) or not all(map(_is_question, entries)):
        return wrong
    return [_question(entry) for entry in entries]


def _is_question(entry: object) -> bool:
    if not isinstance(entry, dict) or not isinstance(entry.get("document"), str):
        return False
    asked = _question(entry)
    k, threshold, explain = asked["k"], asked["threshold"], asked["explain"]
    return (
        (isinstance(k, int) and k >= 0)
        and (threshold is None or (isinstance(threshold, int | float) and 0.0 <= threshold <= 1.0))
        and (explain is None or (isinstance(explain, list) and all(isinstance(label, str) for label in explain)))
    )


def _question(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {"k": 0, "threshold": None, "explain": None, **entry}


def _text(value: object) -> str | None:
    """Return ``value`` as text if it is text or UTF-8; ``None`` for anything else."""
    if isinstance(value, bytes | bytearray):
        try:
            return value.decode("utf-8")
        except UnicodeDecodeError:
            return None
    return value if isinstance(value, str) else None


def _within_bounds(replies: Sequence[Any]) -> tuple[list[Any], list[str]]:
    """Return the replies and their texts, with errors in place of those that would be too long together."""
    kept: list[Any] = []
    texts: list[str] = []
    room = _MOST_BYTES
    for reply in replies:
        text, response = json.dumps(reply), reply
        if len(text) > room:
            response = (
                _error(
                    _TOO_LARGE,
                    "the answer is too large for TorchServe; request fewer documents, labels or explanations",
                )
                if len(text) > _MOST_BYTES
                else _error(
                    _TOO_MUCH_AT_ONCE, "the answers to all callers are too large for TorchServe; try again shortly"
                )
            )
            text = json.dumps(response)
        room -= len(text)
        kept.append(response)
        texts.append(text)
    return kept, texts


def _json_of(path: Path) -> Any:
    return json.loads(path.read_text("utf-8-sig"))


def _label_alone(answer: dict[str, Any]) -> dict[str, Any]:
    return answer if "code" in answer else {"result": answer["result"]}


def _not_finite() -> dict[str, Any]:
    return _error(_FAILED, "the model's answer is not a number; train the model again")


def _error(code: int, message: str) -> dict[str, Any]:
    return {"code": code, "type": "PredictionException", "message": message}
