"""``python -m tests.chaos``: a chaos run; exits with 1 if an answer was wrong or a model did not recover."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from tests.chaos.run import Report, run
from tests.end_to_end.processes import TRANSPORT, transports


def main() -> int:
    """Run, print the report, and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description="Faults at once, every answer checked.")
    parser.add_argument("--minutes", type=float, default=10.0, help="duration (default: 10)")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="seed of the faults (default: the time)")
    parser.add_argument("--transport", choices=transports(), default=TRANSPORT, help="transport of the services")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
        report = run(Path(folder), 60 * options.minutes, options.seed, options.transport)
    print_report(report)
    return 1 if report.failures else 0


def print_report(report: Report) -> None:
    """Print what a run has seen."""
    calls = ", ".join(f"{number} {status}" for status, number in report.statuses.most_common())
    faults = ", ".join(f"{number} {kind}" for kind, number in report.faults_made.most_common())
    sys.stdout.write(f"seed {report.seed}: {report.statuses.total()} calls: {calls}\nfaults: {faults}\n")
    for (status, message), number in report.messages.most_common():
        if status != "OK":
            sys.stdout.write(f"{number:7} {status}: {message}\n")
    for failure in report.failures[:20]:
        sys.stdout.write(f"FAILED: {failure}\n")
    sys.stdout.write(f"{len(report.failures)} wrong answers, undocumented statuses or models that did not recover\n")


if __name__ == "__main__":
    sys.exit(main())
