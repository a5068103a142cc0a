"""The process that compares files for a service: ``python -m serving.volume.freshness.process``.

Each line that comes in has groups of files, ``[[[path, identity], ...], ...]``, and is answered with a line that says
of each group whether one of them has changed. It ends with the service.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys

from serving.volume.file_identity import FileIdentity, have_changed


def main() -> None:
    """Answer until nobody asks any more."""
    # The service is asked to end, and ends this process when it does.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    with contextlib.suppress(ConnectionError):
        for line in sys.stdin.buffer:
            changed = [
                have_changed((path, identity and FileIdentity(*identity)) for path, identity in files)
                for files in json.loads(line)
            ]
            # Not by way of a buffer, which would be written once more at the end, when nobody is there.
            os.write(sys.stdout.fileno(), json.dumps(changed).encode() + b"\n")


if __name__ == "__main__":
    main()
