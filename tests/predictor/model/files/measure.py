"""Prints what the files of ``oversized.py`` take, each in a process of its own.

``python -m tests.predictor.model.files.measure`` prints size, processor time, growth of the peak resident memory, and
the outcome.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import time

from serving.domain.errors import InvalidModelFile
from tests.predictor.model.files.oversized import VOCABULARY_FILES, WEIGHT_FILES, read_tokens, read_weights

KINDS = {"weights": (WEIGHT_FILES, read_weights), "vocabulary": (VOCABULARY_FILES, read_tokens)}


def measure(kind: str, name: str) -> str:
    """Return a line about one file, which is read in this process."""
    files, read = KINDS[kind]
    data = files[name]()
    before = _peak_kilobytes()
    began = time.process_time()
    outcome = "read"
    try:
        read(data)
    except InvalidModelFile as error:
        outcome = str(error)
    seconds = time.process_time() - began
    grown = (_peak_kilobytes() - before) / 1024
    return f"{kind:10} {name:20} {len(data) / 2**20:6.1f} MiB {seconds:6.2f} s {grown:6.1f} MiB  {outcome}\n"


def _peak_kilobytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def main() -> None:
    """Measure the file that the arguments name, else each in a process of its own."""
    if sys.argv[1:]:
        sys.stdout.write(measure(*sys.argv[1:]))
        return
    for kind, (files, _) in KINDS.items():
        for name in files:
            subprocess.run([sys.executable, "-m", __spec__.name, kind, name], check=True)


if __name__ == "__main__":
    main()
