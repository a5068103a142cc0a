"""Which names metrics have beside ours: those that dashboards of other servers know."""

from __future__ import annotations

from typing import Final

OURS: Final = "intent"
TRITON: Final = "triton"
"""Names of NVIDIA's Triton: https://github.com/triton-inference-server/server, docs/user_guide/metrics.md."""
MODELMESH: Final = "modelmesh"
"""Names of KServe's ModelMesh: https://github.com/kserve/modelmesh, com.ibm.watson.modelmesh.Metric."""

_KNOWN: Final = (OURS, TRITON, MODELMESH)


def parse_metric_names(text: str) -> frozenset[str]:
    """Return the kinds of names that a person wrote with commas between them; ours are always among them.

    Raises:
        ValueError: one of them is not known.
    """
    wanted = {part.strip() for part in text.split(",") if part.strip()}
    unknown = sorted(wanted.difference(_KNOWN))
    if unknown:
        raise ValueError(f"{', '.join(unknown)}: not known; there are {', '.join(_KNOWN)}")
    return frozenset({OURS, *wanted})
