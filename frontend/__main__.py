"""``python -m frontend``: the frontend's composition root."""

from __future__ import annotations

import os

from frontend.backends.channel import RING_HASH_VARIABLE
from frontend.settings import FrontendSettings
from serving.settings import load_settings
from serving.transport.hosting import Program, run


def main() -> None:
    """Run the frontend until a signal."""
    settings = load_settings(FrontendSettings)
    # gRPC reads this where it makes a channel, in this process or in a worker that it starts.
    os.environ.setdefault(RING_HASH_VARIABLE, "true")
    run(Program("frontend", "frontend.service:build"), settings)


if __name__ == "__main__":
    main()
