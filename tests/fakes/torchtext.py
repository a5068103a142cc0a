"""A fake torchtext: its classes, pickled under its names. Its last release does not load beside torch 2.4 and later.

The fakes hold the state that torchtext's own classes hold, and answer no lookup.
"""

from __future__ import annotations

import collections
import copyreg
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from torch import nn


class FakeModernVocab(nn.Module):
    """A stand-in for torchtext.vocab.vocab.Vocab, a module around a C++ object."""

    def __init__(self, inner: object) -> None:
        super().__init__()
        self.vocab = inner


class FakeInnerVocab:
    """A stand-in for torchtext._torchtext.Vocab, and for the ScriptObject that scripting makes of it."""

    def __init__(self, state: object) -> None:
        self.state = state

    def __reduce_ex__(self, protocol: Any) -> Any:
        return copyreg.__newobj__, (type(self),), self.state  # type: ignore[attr-defined]

    def __setstate__(self, state: object) -> None:
        raise NotImplementedError


class FakeLegacyVocab:
    """A stand-in for torchtext.vocab.Vocab of torchtext 0.2 to 0.9."""

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
