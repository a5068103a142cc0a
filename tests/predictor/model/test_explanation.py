from __future__ import annotations

import json
import math
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from captum.attr import IntegratedGradients
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from predictor.model.files.tensors import read_state_dict
from predictor.model.folded_network import FoldedNetwork
from predictor.model.intent_model import IntentModel
from predictor.model.network import IntentNetwork
from predictor.model.tokenizer import Tokenizer
from predictor.model.vocabulary import Vocabulary, read_vocabulary
from serving.domain.errors import InvalidRequest, NonFiniteLogits
from serving.domain.explanation import Explanation
from serving.domain.manifest import Manifest
from serving.domain.model_id import ModelId
from serving.domain.prediction import Prediction, Query
from tests.conftest import ROOT, shared
from tests.predictor.builders import manifest, model, model_state, network, state_dict
from tests.samples import SAMPLES
from tests.serving.refusals import assert_fit_for_callers

LABELS = ["alpha", "beta", "gamma", "delta"]
WORDS = ["<unk>", "the", "red", "blue", "!"]
NGRAMS = "basic_english+words:2+characters:3-5"
NGRAM_TOKENS = 28_000
DIMENSIONS = (64, 128)


def explained(subject: IntentModel, document: str, *labels: str) -> Explanation:
    return explanation_of(subject.predict([Query("m", document, explain=labels)])[0])


def explanation_of(outcome: Any) -> Explanation:
    assert isinstance(outcome, Prediction), outcome
    assert outcome.explanation is not None
    return outcome.explanation


# Exactness, on all rows of CLINC150's test sets.


@cache
def rows() -> Sequence[str]:
    data = json.loads(shared("datasets/clinc150/data_full.json").read_text())
    return [text for part in ("test", "oos_test") for text, _ in data[part]]


@cache
def sample() -> tuple[IntentModel, IntentNetwork]:
    """Return a sample model as it serves, and its network with all layers."""
    folder = ROOT / "models" / "clinc150"
    arrays = read_state_dict((folder / "model.pth").read_bytes())
    served = IntentModel(
        ModelId("clinc150"),
        Manifest.parse((folder / "manifest.json").read_bytes()),
        read_vocabulary((folder / "vocab.pth").read_bytes()),
        FoldedNetwork.from_arrays(arrays),
    )
    return served, IntentNetwork.from_arrays(arrays)


@cache
def with_ngrams() -> tuple[IntentModel, IntentNetwork]:
    """Return a model of words and n-grams of CLINC150's training texts, with random weights."""
    tokenizer = Tokenizer.parse(NGRAMS)
    seen: Counter[str] = Counter()
    for text, _ in json.loads(shared("datasets/clinc150/data_full.json").read_text())["train"]:
        tokens = tokenizer.tokens(text)
        seen.update(set(tokens))
        seen.update(set(tokenizer.ngrams(tokens)))
    vocabulary = Vocabulary.of(["<unk>", *(token for token, _ in seen.most_common(NGRAM_TOKENS))], 0)
    labels = [f"label {number}" for number in range(151)]
    # Weights of the size that training starts from.
    state = state_dict(len(vocabulary), *DIMENSIONS, 151)
    arrays = {name: (value / value.shape[-1] ** 0.5).numpy() for name, value in state.items()}
    served = IntentModel(
        ModelId("m"), manifest(labels, Tokenizer=NGRAMS), vocabulary, FoldedNetwork.from_arrays(arrays)
    )
    return served, IntentNetwork.from_arrays(arrays)


BOTH = pytest.mark.parametrize("made", [sample, with_ngrams], ids=["words", "ngrams"])
Made = Callable[[], tuple[IntentModel, IntentNetwork]]


@pytest.mark.slow
@BOTH
def test_contributions_and_bias_add_up_to_the_logit_on_all_clinc150_test_rows(
    made: Made, figure: Callable[[str], None]
) -> None:
    served, _ = made()
    told = away = 0.0
    for text in rows():
        (logits,) = served.logits([text]).tolist()
        explanation = explained(served, text, served.labels[7])
        for part in explanation.labels:
            told = max(told, abs(part.logit - (part.bias + sum(part.contributions))))
            away = max(away, abs(part.logit - logits[served.labels.index(part.label)]))
            assert len(part.contributions) == len(explanation.tokens)
    figure(f"{made.__name__}: contributions and bias are off the logit told by {told:.1e}, the network's by {away:.1e}")
    assert len(rows()) == 5500
    assert told <= 1e-12
    assert away <= 1e-5


class OfTokens(nn.Module):
    """The layers of a network as a function of the embeddings of a document's tokens, which ``EmbeddingBag`` averages.

    Integrated gradients need an input that can move from a baseline to its value by degrees. Indices cannot, and the
    mean of a document, which ``EmbeddingBag`` returns, no longer has tokens. The embeddings have both properties.
    Their baseline is zero: a token that adds nothing to the mean, as in a document without tokens, whose logits are the
    bias. Along that path the logit grows evenly, so the gradient is the same everywhere and its integral is exact at
    any number of steps. Summed over the dimensions, the integral is embedding times weights over the number of tokens,
    which an explanation reports without any step.
    """

    def __init__(self, network: IntentNetwork) -> None:
        super().__init__()
        self._layers = nn.Sequential(*network._linears)

    def forward(self, embeddings: Tensor, lengths: Tensor) -> Tensor:
        """Return the logits.

        Args:
            embeddings: shape [documents, tokens, dimensions], with zeros after the tokens of shorter documents.
            lengths: number of tokens of each document; shape [documents, 1].
        """
        logits: Tensor = self._layers(embeddings.sum(dim=1) / lengths)
        return logits


@pytest.fixture
def _one_thread() -> Iterator[None]:
    """Let PyTorch compute in this thread alone: beside other tests, PyTorch's threads wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.slow
@pytest.mark.usefixtures("_one_thread")
@BOTH
def test_contributions_are_the_integrated_gradients_of_captum_on_all_clinc150_test_rows(
    made: Made, figure: Callable[[str], None]
) -> None:
    served, unfolded = made()
    of_tokens = OfTokens(unfolded)
    gradients = IntegratedGradients(of_tokens)
    outcomes = served.predict([Query("m", text, explain=()) for text in rows()])
    bags = [torch.tensor(np.asarray(served.encode(text).bag)) for text in rows()]
    by_length = sorted(range(len(bags)), key=lambda index: len(bags[index]))

    most = 0.0
    for start in range(0, len(by_length), 100):
        members = by_length[start : start + 100]
        embeddings = nn.utils.rnn.pad_sequence([unfolded.embedding.weight[bags[i]] for i in members], batch_first=True)
        lengths = torch.tensor([[max(len(bags[index]), 1)] for index in members])
        best = [explanation_of(outcomes[index]).labels[0] for index in members]
        target = torch.tensor([served.labels.index(part.label) for part in best])
        offsets = torch.tensor([0, *(len(bags[index]) for index in members)]).cumsum(0)[:-1]
        plain = unfolded(torch.cat([bags[index] for index in members]), offsets)
        torch.testing.assert_close(of_tokens(embeddings, lengths), plain, rtol=1e-4, atol=1e-4)

        attributed = gradients.attribute(
            embeddings, torch.zeros_like(embeddings), target, additional_forward_args=(lengths,), n_steps=2
        )
        for found, part in zip(attributed.sum(dim=2).numpy(), best, strict=True):
            count = len(part.contributions)
            most = max(most, float(np.abs(found[:count] - part.contributions).max(initial=0.0)))
    figure(f"{made.__name__}: contributions are off Captum's integrated gradients by {most:.1e}")
    assert most <= 1e-4


# Properties.

TEXTS = st.lists(st.sampled_from(["the", "red", "blue", "green", "!", "a.b", 'q"q', "é", "\0"]), max_size=12)
NGRAM_MODEL_TEXTS = ["the red blue", "blue !", "the !", "red the", "a . b"]


def small(default: int | None, tokenizer: str) -> IntentModel:
    written = Tokenizer.parse(tokenizer)
    ngrams = dict.fromkeys(ngram for text in NGRAM_MODEL_TEXTS for ngram in written.ngrams(written.tokens(text)))
    return model([*WORDS, *[*ngrams][::2]], LABELS, default, Tokenizer=tokenizer)


MODELS = st.builds(
    small,
    st.sampled_from([0, 3, None, -1]),
    st.sampled_from(["basic_english", NGRAMS, "basic_english+words:2", "characters", "basic_english_characters"]),
)


@given(MODELS, TEXTS.map(" ".join), st.sets(st.sampled_from(LABELS)))
@settings(max_examples=200)
def test_all_parts_of_any_document_add_up(subject: IntentModel, document: str, labels: set[str]) -> None:
    told = explained(subject, document, *sorted(labels))
    (logits,) = subject.logits([document]).astype(np.float64)
    assert {part.label for part in told.labels} == labels | {subject.predict([Query("m", document)])[0].label}  # type: ignore[union-attr]
    for part in told.labels:
        assert math.fsum((part.bias, *part.contributions)) == pytest.approx(part.logit, rel=1e-12, abs=1e-12)
        assert part.logit == pytest.approx(logits[LABELS.index(part.label)], rel=1e-5, abs=1e-5)
        assert len(part.contributions) == len(told.tokens)


@given(MODELS, TEXTS.map(" ".join))
@settings(max_examples=100)
def test_an_explanation_is_of_what_the_network_is_given(subject: IntentModel, document: str) -> None:
    told = explained(subject, document, *LABELS)
    words = subject.tokenizer.tokens(document)
    known = subject._vocabulary.indices
    assert [*told.tokens] == [*words, *(ngram for ngram in subject.tokenizer.ngrams(words) if ngram in known)]
    assert [*told.unknown] == [index for index, word in enumerate(words) if word not in known]
    for part in told.labels:
        # A token adds the same value wherever it is; every unknown token adds that of the default index, or nothing.
        adds: dict[str, float] = {}
        for token, contribution in zip(told.tokens, part.contributions, strict=True):
            assert contribution == adds.setdefault(token if token in known else "unknown", contribution)
    if subject._default is None:
        assert all(part.contributions[index] == 0.0 for part in told.labels for index in told.unknown)


@pytest.mark.slow
@given(st.sampled_from([0, None]), TEXTS, st.randoms(use_true_random=False))
def test_the_order_of_words_changes_no_contribution_and_no_explained_logit(
    default: int | None, words: list[str], chance: Any
) -> None:
    subject = model(WORDS, LABELS, default)
    shuffled = chance.sample(words, len(words))
    here, there = explained(subject, " ".join(words), *LABELS), explained(subject, " ".join(shuffled), *LABELS)
    assert Counter(here.tokens) == Counter(there.tokens)
    for label in LABELS:
        before, after = (
            (part.logit, Counter(zip(told.tokens, part.contributions, strict=True)))
            for told in (here, there)
            for part in told.labels
            if part.label == label
        )
        assert after == before


@given(MODELS, st.lists(st.tuples(TEXTS.map(" ".join), st.booleans()), min_size=1, max_size=5))
@settings(max_examples=60)
def test_an_explanation_does_not_depend_on_the_neighbours_of_its_query(
    subject: IntentModel, asked: list[tuple[str, bool]]
) -> None:
    queries = [Query("m", text, explain=("beta",) if with_reasons else None) for text, with_reasons in asked]
    for query, outcome in zip(queries, subject.predict(queries), strict=True):
        assert isinstance(outcome, Prediction)
        assert (outcome.explanation is None) == (query.explain is None)
        if query.explain is not None:
            assert outcome.explanation == explained(subject, query.document, "beta")


# Particular documents and labels.


def test_a_document_without_tokens_has_the_bias_and_nothing_else() -> None:
    for document in ("", " ", '""', "<br />"):
        told = explained(model(WORDS, LABELS, 0), document)
        (part,) = told.labels
        assert (told.tokens, told.unknown, part.contributions) == ((), (), ())
        assert part.logit == part.bias


def test_words_that_the_model_does_not_know_are_marked_and_take_the_default_index_or_add_nothing() -> None:
    with_default = explained(model(WORDS, LABELS, 3), "the green sky")
    (part,) = with_default.labels
    assert (with_default.tokens, with_default.unknown) == (("the", "green", "sky"), (1, 2))
    # The default index may be the index of a word; unknown words then count as that word.
    (as_blue,) = explained(model(WORDS, LABELS, 3), "the blue blue").labels
    assert part == as_blue

    without = explained(model(WORDS, LABELS, None), "green the sky")
    assert (without.tokens, without.unknown) == (("green", "the", "sky"), (0, 2))
    (part,) = without.labels
    assert part.contributions[0] == part.contributions[2] == 0.0 != part.contributions[1]


def test_labels_asked_for_come_behind_the_best_one_each_once() -> None:
    subject = model(WORDS, LABELS, 0)
    best = explained(subject, "the red").labels[0].label
    others = [label for label in LABELS if label != best]
    told = explained(subject, "the red", others[1], best, others[0], others[1], others[1])
    assert [part.label for part in told.labels] == [best, others[1], others[0]]


def test_a_label_that_the_model_does_not_have_fails_its_own_query_only() -> None:
    queries = [Query("m", "the", explain=("secret",)), Query("m", "the", explain=()), Query("m", "red")]
    refused, *answered = model(WORDS, LABELS, 0).predict(queries)
    assert isinstance(refused, InvalidRequest)
    assert_fit_for_callers(refused)
    assert "secret" not in str(refused)
    assert all(isinstance(outcome, Prediction) for outcome in answered)


def test_of_two_outputs_with_one_label_the_larger_is_explained() -> None:
    arrays = {
        "embedding.weight": np.zeros((5, 2), dtype=np.float32),
        "fc1.weight": np.zeros((4, 2), dtype=np.float32),
        "fc1.bias": np.array([1, 5, 2, 3], dtype=np.float32),
    }
    labels = ["twin", "best", "twin", "other"]
    subject = IntentModel(ModelId("m"), manifest(labels), Vocabulary.of(WORDS, 0), FoldedNetwork.from_arrays(arrays))
    assert [(part.label, part.bias) for part in explained(subject, "the", "twin", "best").labels] == [
        ("best", 5.0),
        ("twin", 2.0),
    ]


def test_logits_are_told_before_the_temperature_and_scores_behind_it() -> None:
    warm = model(WORDS, LABELS, 0, Confidence={"temperature": 2.5})
    (answer,) = warm.predict([Query("m", "the red", 4, explain=tuple(LABELS))])
    told = explanation_of(answer)
    assert told.temperature == 2.5
    cold = explained(model(WORDS, LABELS, 0), "the red", *LABELS)
    assert told.labels == cold.labels
    exponentials = {part.label: math.exp(part.logit / told.temperature) for part in told.labels}
    assert isinstance(answer, Prediction)
    for best in answer.best:
        assert best.score == pytest.approx(exponentials[best.label] / sum(exponentials.values()), rel=1e-5)


def test_an_answer_that_fell_back_explains_the_best_label() -> None:
    subject = model(WORDS, LABELS, 0, Confidence={"threshold": 1.0, "fallback": "delta"})
    (answer,) = subject.predict([Query("m", "the red", explain=())])
    assert isinstance(answer, Prediction)
    assert answer.fallback is not None
    assert explanation_of(answer).labels[0].label == answer.fallback.best.label != answer.label == "delta"


def test_parts_may_be_larger_than_any_logit_of_the_network() -> None:
    state = model_state(WORDS, LABELS)
    rows = state["embedding.weight"]
    # Each row is within the range of a float32, and so is the sum of the rows; their products with the weights are not.
    rows[2], rows[3] = 3e38, -3e38
    state["fc1.weight"] *= 10
    subject = model(WORDS, LABELS, 0, state=state)
    (part,) = explained(subject, "red blue").labels
    assert max(map(abs, part.contributions)) > 3.5e38
    assert math.isfinite(part.logit)
    (alone,) = subject.predict([Query("m", "red", explain=())])
    assert isinstance(alone, NonFiniteLogits)


def test_an_explanation_too_large_is_refused_and_the_plain_answer_is_not() -> None:
    subject = model(WORDS, LABELS, 0)
    document = "the " * 100_000
    large, fewer, plain = subject.predict(
        [Query("m", document, explain=tuple(LABELS)), Query("m", document, explain=()), Query("m", document)]
    )
    assert isinstance(large, InvalidRequest)
    assert_fit_for_callers(large)
    assert len(explanation_of(fewer).tokens) == 100_000
    assert isinstance(plain, Prediction)


@pytest.mark.parametrize("model_id", SAMPLES)
def test_every_sample_model_explains_itself(model_id: str) -> None:
    folder = ROOT / "models" / model_id
    arrays = read_state_dict((folder / "model.pth").read_bytes())
    vocabulary = read_vocabulary((folder / "vocab.pth").read_bytes())
    manifest = Manifest.parse((folder / "manifest.json").read_bytes())
    subject = IntentModel(ModelId("m"), manifest, vocabulary, FoldedNetwork.from_arrays(arrays))
    told = explained(subject, "please tell me what the exchange rate is zzyzx")
    assert math.fsum((told.labels[0].bias, *told.labels[0].contributions)) == pytest.approx(
        told.labels[0].logit, abs=1e-12
    )
    assert "zzyzx" in {told.tokens[index] for index in told.unknown}


def test_a_network_alone_tells_the_parts_of_any_class() -> None:
    folded = network(9, 6, 5, 4)
    (logits,) = folded.logits([[1, 1, 8]]).tolist()
    for index, (parts, bias, logit) in zip([3, 0], folded.contributions(folded.rows([1, 1, 8]), [3, 0]), strict=True):
        assert parts[0] == parts[1] != parts[2]
        assert math.fsum(parts) + bias == pytest.approx(logit, rel=1e-12) == pytest.approx(logits[index], rel=1e-5)
    bias = folded.logits([[]])[0].tolist()[2]
    assert [*folded.contributions(folded.rows([]), [2])] == [([], bias, bias)]


@pytest.mark.parametrize("width", [1, 3, 8, 63, 64, 100, 300])
def test_a_token_adds_the_same_to_the_last_bit_wherever_it_stands_and_however_many_there_are(width: int) -> None:
    folded = network(40, width, 6)

    def parts(bag: Sequence[int]) -> list[float]:
        ((parts, _, _),) = folded.contributions(folded.rows(bag), [2])
        return parts

    alone = [parts([token])[0] for token in range(40)]
    for tokens in (*range(1, 40), 100, 1_023, 1_024, 1_025, 5_000):
        bag = [place * 7 % 40 for place in range(tokens)]
        assert parts(bag) == [alone[token] / tokens for token in bag]
        assert parts(bag[:1] * tokens) == [alone[bag[0]] / tokens] * tokens


def test_the_parts_of_a_label_are_the_same_whichever_other_labels_are_explained() -> None:
    folded = network(9, 64, 7)
    rows = folded.rows([1, 8, 3, 1, 5])
    together = [*folded.contributions(rows, range(7))]
    assert [*folded.contributions(rows, [6, 0, 3])] == [together[6], together[0], together[3]]


def test_an_explanation_of_a_long_document_holds_few_products_at_a_time() -> None:
    folded = network(5, 64, 4)
    rows = folded.rows([1, 2, 3, 4, 0] * 20_000)
    tracemalloc.start()
    ((parts, _, _),) = folded.contributions(rows, [0])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(parts) == 100_000
    # All products together are twice as large as the rows.
    assert peak < rows.nbytes
