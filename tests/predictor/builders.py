"""What the tests of the predictor's files are built from: torch files, fakes of torchtext's classes, small models."""

from __future__ import annotations

import collections
import copyreg
import io
import itertools
import json
import sys
import warnings
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import torch
from torch import nn

from predictor.model.folded_network import FoldedNetwork
from predictor.model.intent_model import IntentModel
from predictor.model.vocabulary import Vocabulary
from serving.domain.manifest import Manifest
from serving.domain.model_id import ModelId


def saved(value: object, *, legacy: bool = False) -> bytes:
    """Return what torch.save writes, in the container of today or in the one before torch 1.6."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # torch cannot find the source text of a fake class, and says so.
        warnings.simplefilter("ignore", UserWarning)
        torch.save(value, buffer, _use_new_zipfile_serialization=not legacy)
    return buffer.getvalue()


def archive(
    members: Iterable[tuple[str, bytes]], *, compression: int = zipfile.ZIP_STORED, stem: str = "archive/"
) -> bytes:
    """Return a zip archive of the members, in order; a name may stand in it twice."""
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


# Fakes of torchtext's classes: they are pickled under its names, and hold what its own state holds. They are not
# torchtext, and answer no question.


class FakeModernVocab(nn.Module):
    """Stands in for torchtext.vocab.vocab.Vocab, a module around a C++ object."""

    def __init__(self, inner: object) -> None:
        super().__init__()
        self.vocab = inner


class FakeInnerVocab:
    """Stands in for torchtext._torchtext.Vocab, and for the ScriptObject that scripting makes of it."""

    def __init__(self, state: object) -> None:
        self.state = state

    def __reduce_ex__(self, protocol: Any) -> Any:
        return copyreg.__newobj__, (type(self),), self.state  # type: ignore[attr-defined]

    def __setstate__(self, state: object) -> None:
        raise NotImplementedError


class FakeLegacyVocab:
    """Stands in for torchtext.vocab.Vocab of torchtext 0.2 to 0.9."""

    def __init__(self, attributes: Mapping[str, object]) -> None:
        self.__dict__.update(attributes)


def fake_default_unknown_index() -> int:
    """Stand in for torchtext.vocab._default_unk_index, the factory of the defaultdict in 0.2 and 0.3."""
    return 0


_FAKES: Sequence[tuple[str, str, Any]] = (
    ("torchtext.vocab.vocab", "Vocab", FakeModernVocab),
    ("torchtext._torchtext", "Vocab", FakeInnerVocab),
    ("torchtext.vocab", "Vocab", FakeLegacyVocab),
    ("torchtext.vocab", "_default_unk_index", fake_default_unknown_index),
)


@contextmanager
def fake_torchtext() -> Iterator[None]:
    """Make the fakes importable under torchtext's names, so that they can be pickled under them."""
    modules = {name: ModuleType(name) for name in ("torchtext", *(module for module, _, _ in _FAKES))}
    own = [(fake, fake.__module__, fake.__qualname__) for _, _, fake in _FAKES]
    before = {name: sys.modules.get(name) for name in modules}
    sys.modules.update(modules)
    try:
        for module, name, fake in _FAKES:
            fake.__module__, fake.__qualname__ = module, name
            setattr(modules[module], name, fake)
        yield
    finally:
        for fake, module, name in own:
            fake.__module__, fake.__qualname__ = module, name
        for name, known in before.items():
            if known is None:
                del sys.modules[name]
            else:
                sys.modules[name] = known


def modern_vocab(tokens: Sequence[str], default: int | None = None, *, version: str = "0.0.2") -> FakeModernVocab:
    """Return a fake of a vocabulary of torchtext 0.11 to 0.18."""
    return FakeModernVocab(FakeInnerVocab((version, [] if default is None else [default], list(tokens), [])))


def scripted_vocab(tokens: Sequence[str], default: int | None = None) -> FakeModernVocab:
    """Return a fake of a vocabulary whose inner object torch.jit has scripted."""
    state: tuple[object, ...] = ("0.0.2", [] if default is None else [default], list(tokens), [])
    return FakeModernVocab(FakeInnerVocab((state, "__torch__.torch.classes.torchtext.Vocab")))


def legacy_vocab(tokens: Sequence[str], **attributes: object) -> FakeLegacyVocab:
    """Return a fake of a vocabulary of torchtext 0.4 to 0.9; ``attributes`` replace and add to its state."""
    indices = {token: index for index, token in enumerate(tokens)}
    return FakeLegacyVocab(
        {
            "freqs": collections.Counter(tokens),
            "itos": list(tokens),
            "unk_index": indices.get("<unk>"),
            "stoi": indices,
            "vectors": None,
        }
        | attributes
    )


def old_legacy_vocab(tokens: Sequence[str]) -> FakeLegacyVocab:
    """Return a fake of a vocabulary of torchtext 0.2 and 0.3: a defaultdict, and no unk_index."""
    vocab = legacy_vocab(tokens)
    del vocab.__dict__["unk_index"]
    indices = {token: index for index, token in enumerate(tokens)}
    vocab.__dict__["stoi"] = collections.defaultdict(fake_default_unknown_index, indices)
    return vocab


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
    """Return the network of that state_dict."""
    return FoldedNetwork.from_arrays(
        {name: value.numpy() for name, value in state_dict(vocabulary_size, *widths).items()}
    )


def manifest(labels: Sequence[str], **keys: object) -> Manifest:
    """Return a manifest with these labels."""
    document = {"Algorithm": "a", "classes": {str(index): label for index, label in enumerate(labels)}}
    return Manifest.parse(json.dumps(document | keys).encode())


def model(tokens: Sequence[str], labels: Sequence[str], default: int | None = None, **keys: object) -> IntentModel:
    """Return a model over these tokens with one hidden layer."""
    vocabulary = Vocabulary.of(tokens, default)
    return IntentModel(
        ModelId("m"), manifest(labels, **keys), vocabulary, network(max(len(tokens), 1), 8, 5, len(labels))
    )
