"""Public names of the Python clients.

with IntentClient("127.0.0.1:51001") as client:
    print(client.predict("clinc150", "wake me up at seven").label)
"""

from typing import TYPE_CHECKING, Any

from serving.domain.errors import ServingError
from serving.domain.explanation import Explanation, LabelExplanation
from serving.domain.prediction import Fallback, Outcome, Prediction, Query, ScoredLabel
from serving.wire.channels import ChannelOptions
from serving.wire.client import AsyncIntentClient, IntentClient

if TYPE_CHECKING:
    from serving.wire.management_client import ManagementClient
else:

    def __getattr__(name: str) -> Any:
        """Return the management client, which is loaded on first use: it takes longer to load than all other names."""
        if name != "ManagementClient":
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from serving.wire.management_client import ManagementClient  # noqa: PLC0415

        globals()[name] = ManagementClient
        return ManagementClient


__all__ = [
    "AsyncIntentClient",
    "ChannelOptions",
    "Explanation",
    "Fallback",
    "IntentClient",
    "LabelExplanation",
    "ManagementClient",
    "Outcome",
    "Prediction",
    "Query",
    "ScoredLabel",
    "ServingError",
]
