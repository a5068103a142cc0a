"""Check wheels of a release: the services answer from this environment, and clients ask from others.

``python check_release.py --version VERSION --models FOLDER PYTHON...`` runs in an environment with the services; each
PYTHON is that of an environment with the client. Exits with 1 and a reason if anything is missing.
"""

from __future__ import annotations

import argparse
import socket
import subprocess
import sys
from pathlib import Path

START_SECONDS = 120.0

ASK = """
import asyncio, sys
from intent_serving_client import VERSION, AsyncIntentClient, IntentClient
address, version = sys.argv[1:]
assert VERSION == version, f"the client is {VERSION}"
with IntentClient(address) as client:
    assert client.predict("clinc150", "make a 10 minute timer").label == "timer"
async def main():
    async with AsyncIntentClient(address) as client:
        assert (await client.predict("clinc150", "make a 10 minute timer")).label == "timer"
asyncio.run(main())
"""


def main() -> None:
    """Run the check that the command line requests."""
    parser = argparse.ArgumentParser(description="Check the wheels of a release.")
    parser.add_argument("--version", required=True, help="the version of the wheels")
    parser.add_argument("--models", required=True, type=Path, help="the sample models")
    parser.add_argument("clients", nargs="+", help="the Python of each environment with the client")
    flags = parser.parse_args()
    for program in ("frontend", "predictor", "model_service"):
        subprocess.run([sys.executable, "-m", program, "--help"], check=True, stdout=subprocess.DEVNULL)
    subprocess.run([Path(sys.executable).with_name("intentctl"), "--help"], check=True, stdout=subprocess.DEVNULL)
    address = f"127.0.0.1:{_free_port()}"
    port = address.rpartition(":")[2]
    command = [sys.executable, "-m", "model_service", "--port", port, "--model-dir", str(flags.models)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as service:
        try:
            _wait_until_ready(service)
            for python in flags.clients:
                subprocess.run([python, "-c", ASK, address, flags.version], check=True)
        finally:
            service.terminate()
            service.communicate(timeout=START_SECONDS)
    if service.returncode:
        sys.exit(f"the service ended with exit code {service.returncode}")


def _wait_until_ready(service: subprocess.Popen[str]) -> None:
    lines = []
    for line in service.stdout or ():
        lines.append(line)
        if '"ready"' in line:
            return
    sys.exit("the service did not start:\n" + "".join(lines))


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


if __name__ == "__main__":
    main()
