"""The process that compares files for a service: ``python -m serving.volume.freshness.process``.

Each input line contains groups of files, ``[[[path, identity], ...], ...]``, and is answered with a line that says for
each group whether one of its files has changed. The process ends with the service.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys

from serving.volume.file_identity import FileIdentity, have_changed


def main() -> None:
    """Answer until the input ends."""
    # These signals are for the service, which ends this process when the service itself ends.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    with contextlib.suppress(ConnectionError):
        for line in sys.stdin.buffer:
            changed = [
                have_changed((path, identity and FileIdentity(*identity)) for path, identity in files)
                for files in json.loads(line)
            ]
            # Unbuffered: a buffer would be flushed once more at exit, when the reader is gone.
            os.write(sys.stdout.fileno(), json.dumps(changed).encode() + b"\n")


if __name__ == "__main__":
    main()
