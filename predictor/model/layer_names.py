"""Names of a network's layers in files from other trainers, mapped to those of the book's files.

Imports nothing, because TorchServe's handler uses this too.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import takewhile
from typing import Final

EMBEDDING: Final = "embedding.weight"
_LINEAR_WEIGHT: Final = re.compile(r"fc[1-9][0-9]*\.weight")
_WEIGHT: Final = ".weight"
_BIAS: Final = ".bias"

# Components that DataParallel, DistributedDataParallel and torch.compile put before the names of what they wrap.
_WRAPPERS: Final = frozenset({"module", "_orig_mod"})

_MOST_NAMED: Final = 5
_LONGEST_NAME: Final = 40


def family_names(shapes: Mapping[str, Sequence[int]]) -> dict[str, str]:
    """Return for each tensor of the family, such as ``fc1.weight``, the name that it has in the file.

    Other names are read if they can be interpreted in only one way: names within ``module.`` and ``_orig_mod.``; a
    prefix that all names have; and an embedding and a single linear layer of any names. Several linear layers must be
    ``fc1``, ``fc2`` and so on: with other names, there may be a function between them, which the file does not record.

    Args:
        shapes: the shape of each tensor, by its name in the file.

    Raises:
        ValueError: the tensors are not those of the family; the message names them.
    """
    for names in (_identical(shapes), _unwrapped(shapes), _without_prefix(_unwrapped(shapes))):
        if _is_family(names):
            return names
    names = _of_single_layer(_unwrapped(shapes), shapes)
    if names:
        return names
    raise ValueError(
        f"must hold embedding.weight, then fc1.weight, fc1.bias, fc2.weight and so on, and holds {_list_of(shapes)};"
        " rename its layers, if nothing stands between them"
    )


def _identical(names: Iterable[str]) -> dict[str, str]:
    return {name: name for name in names}


def _unwrapped(names: Iterable[str]) -> dict[str, str]:
    """Return the names in the file by those without wrappers; nothing if two of them would be the same."""
    every = list(names)
    found = {".".join(part for part in name.split(".") if part not in _WRAPPERS): name for name in every}
    return found if len(found) == len(every) else {}


def _without_prefix(names: Mapping[str, str]) -> dict[str, str]:
    if not names:
        return {}
    # All names begin with the components that the first and the last in order have in common.
    first, last = min(names).split("."), max(names).split(".")
    shared = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(first, last, strict=False)))
    return {".".join(name.split(".")[shared:]): file for name, file in names.items()}


def _is_family(names: Mapping[str, str]) -> bool:
    count = sum(1 for name in names if _LINEAR_WEIGHT.fullmatch(name))
    expected = {f"fc{number}{part}" for number in range(1, count + 1) for part in (_WEIGHT, _BIAS)}
    return bool(count) and names.keys() == expected | {EMBEDDING}


def _of_single_layer(names: Mapping[str, str], shapes: Mapping[str, Sequence[int]]) -> dict[str, str]:
    """Return the names of an embedding and a linear layer of any names; nothing if the file has other tensors."""
    biases = [name for name in names if name.endswith(_BIAS)]
    if len(names) != 3 or len(biases) != 1:
        return {}
    (bias,) = biases
    weight = bias.removesuffix(_BIAS) + _WEIGHT
    embeddings = [name for name in names if name.endswith(_WEIGHT) and name != weight]
    if weight not in names or len(embeddings) != 1:
        return {}
    found = {EMBEDDING: names[embeddings[0]], "fc1.weight": names[weight], "fc1.bias": names[bias]}
    embedding, linear, addend = (shapes[name] for name in found.values())
    fits = len(embedding) == len(linear) == 2 and embedding[1] == linear[1] and tuple(addend) == (linear[0],)
    return found if fits else {}


def _list_of(names: Iterable[str]) -> str:
    every = [_shown(name) for name in names]
    more = f" and {len(every) - _MOST_NAMED} more" if len(every) > _MOST_NAMED else ""
    return ", ".join(every[:_MOST_NAMED]) + more


def _shown(name: str) -> str:
    """Return the name as far as a message may have it."""
    text = "".join(character if character.isascii() and character.isprintable() else "?" for character in name)
    return text if len(text) <= _LONGEST_NAME else f"{text[:_LONGEST_NAME]}..."
