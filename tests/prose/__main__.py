"""``python -m tests.prose [FILE...]``: checks the prose of comments, docstrings, messages and documents.

Exit code 1 where a rule is broken; each finding is a line ``FILE:LINE: MESSAGE``.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path
from typing import Final

from tests.prose.rules import findings
from tests.prose.texts import prose_of

ROOT: Final = Path(__file__).resolve().parents[2]
_CHECKED: Final = (
    "*.md",
    *(f"{package}/**.py" for package in ("serving", "frontend", "predictor", "model_service", "grpc_http2", "clients")),
    *(f"{package}/**.py" for package in ("intentctl", "training", "evaluation", "peers", "benchmarks", "tests")),
)
# Generated code, the history, and examples of broken rules.
_LEFT_OUT: Final = (
    ":!serving/stubs",
    ":!clients/python/src/intent_serving_client/stubs",
    ":!CHANGELOG.md",
    ":!tests/prose",
)


def main() -> None:
    """Check the files that the command line names, or all."""
    parser = argparse.ArgumentParser(prog="python -m tests.prose", description=main.__doc__)
    parser.add_argument("files", nargs="*", metavar="FILE", help="file below the root of the project")
    names = parser.parse_args().files or _all()
    found = [
        f"{name}:{line}: {message}"
        for name in names
        # Strings of the tests are documents to classify, names of models, or examples.
        for line, message in findings(name, prose_of(ROOT / name, with_messages=not name.startswith("tests/")))
    ]
    sys.stdout.writelines(f"{each}\n" for each in found)
    sys.exit(1 if found else 0)


def _all() -> list[str]:
    listed = subprocess.run(
        ["git", "ls-files", "--", *_CHECKED, *_LEFT_OUT],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return listed.stdout.split()


if __name__ == "__main__":
    main()
