"""Sets of metric names: our own, and those that dashboards of other servers expect."""

from __future__ import annotations

from typing import Final

OURS: Final = "intent"
TRITON: Final = "triton"
"""Names used by NVIDIA's Triton: https://github.com/triton-inference-server/server, docs/user_guide/metrics.md."""
MODELMESH: Final = "modelmesh"
"""Names used by KServe's ModelMesh: https://github.com/kserve/modelmesh, com.ibm.watson.modelmesh.Metric."""

_KNOWN: Final = (OURS, TRITON, MODELMESH)


def parse_metric_names(text: str) -> frozenset[str]:
    """Return the sets of names in a comma-separated list; our own set is always included.

    Raises:
        ValueError: the list names an unknown set.
    """
    wanted = {part.strip() for part in text.split(",") if part.strip()}
    unknown = sorted(wanted.difference(_KNOWN))
    if unknown:
        raise ValueError(f"{', '.join(unknown)}: not known; choose from {', '.join(_KNOWN)}")
    return frozenset({OURS, *wanted})
