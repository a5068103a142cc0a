"""Builders for tests of the predictor's files: torch files and small models."""

from __future__ import annotations

import io
import itertools
import json
import warnings
import zipfile
from collections.abc import Iterable, Mapping, Sequence

import torch

from predictor.model.folded_network import FoldedNetwork
from predictor.model.intent_model import IntentModel
from predictor.model.vocabulary import Vocabulary
from serving.domain.manifest import Manifest
from serving.domain.model_id import ModelId


def saved(value: object, *, legacy: bool = False) -> bytes:
    """Return the bytes that torch.save writes, in today's container or in the container before torch 1.6."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # torch warns that it cannot find the source text of a fake class.
        warnings.simplefilter("ignore", UserWarning)
        torch.save(value, buffer, _use_new_zipfile_serialization=not legacy)
    return buffer.getvalue()


def archive(
    members: Iterable[tuple[str, bytes]], *, compression: int = zipfile.ZIP_STORED, stem: str = "archive/"
) -> bytes:
    """Return a zip archive of the members, in order; a name may occur twice."""
    buffer = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(buffer, "w", compression) as file:
        warnings.simplefilter("ignore", UserWarning)
        for name, content in members:
            file.writestr(stem + name, content)
    return buffer.getvalue()


def members_of(data: bytes) -> dict[str, bytes]:
    """Return the members of a file that torch.save wrote, named without their stem."""
    with zipfile.ZipFile(io.BytesIO(data)) as file:
        return {name.split("/", 1)[1]: file.read(name) for name in file.namelist()}


# Small models.


def state_dict(vocabulary_size: int, *widths: int) -> dict[str, torch.Tensor]:
    """Return the state_dict of a network with these widths, the same at every call."""
    generator = torch.Generator().manual_seed(7)
    state = {"embedding.weight": torch.randn(vocabulary_size, widths[0], generator=generator)}
    for number, (inputs, outputs) in enumerate(itertools.pairwise(widths), start=1):
        state[f"fc{number}.weight"] = torch.randn(outputs, inputs, generator=generator)
        state[f"fc{number}.bias"] = torch.randn(outputs, generator=generator)
    return state


def network(vocabulary_size: int, *widths: int) -> FoldedNetwork:
    """Return the network of the ``state_dict`` with these widths."""
    return network_of(state_dict(vocabulary_size, *widths))


def network_of(state: Mapping[str, torch.Tensor]) -> FoldedNetwork:
    """Return the network of a ``state_dict``."""
    return FoldedNetwork.from_arrays({name: value.numpy() for name, value in state.items()})


def manifest(labels: Sequence[str], **keys: object) -> Manifest:
    """Return a manifest with these labels."""
    document = {"Algorithm": "a", "classes": {str(index): label for index, label in enumerate(labels)}}
    return Manifest.parse(json.dumps(document | keys).encode())


def model(
    tokens: Sequence[str],
    labels: Sequence[str],
    default: int | None = None,
    *,
    state: Mapping[str, torch.Tensor] | None = None,
    **keys: object,
) -> IntentModel:
    """Return a model over these tokens with one hidden layer, or with the network of ``state``."""
    if state is None:
        state = model_state(tokens, labels)
    return IntentModel(ModelId("m"), manifest(labels, **keys), Vocabulary.of(tokens, default), network_of(state))


def model_state(tokens: Sequence[str], labels: Sequence[str]) -> dict[str, torch.Tensor]:
    """Return the state_dict of the :func:`model` over these tokens."""
    return state_dict(max(len(tokens), 1), 8, 5, len(labels))
