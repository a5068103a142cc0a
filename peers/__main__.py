"""``python -m peers NAME...`` makes the environments of peers for tests and benchmarks."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Final

from peers.environments import CannotInstall, Environment, environment, names
from peers.torchserve import torchserve_environment
from peers.triton import triton_environment

_WITH_MORE: Final[Mapping[str, Callable[[], Environment]]] = {
    "torchserve": torchserve_environment,
    "triton": triton_environment,
}


def main() -> None:
    """Make the environments that the command line names."""
    wanted = sys.argv[1:]
    unknown = [name for name in wanted if name not in names()]
    if unknown or not wanted:
        raise SystemExit(f"usage: python -m peers NAME...; the names are {', '.join(names())}")
    missing = False
    for name in wanted:
        make = _WITH_MORE.get(name)
        try:
            print(f"{name}: {(make() if make else environment(name)).folder}")
        except CannotInstall as error:
            missing = True
            print(f"{name}: {error}", file=sys.stderr)
    raise SystemExit(missing)


if __name__ == "__main__":
    main()
