"""The Python clients, as their users import them.

with IntentClient("127.0.0.1:51001") as client:
    print(client.predict("clinc150", "wake me up at seven").label)
"""

from serving.wire.client import (
    AsyncIntentClient,
    ChannelOptions,
    Explanation,
    Fallback,
    IntentClient,
    LabelExplanation,
    Outcome,
    Prediction,
    Query,
    ScoredLabel,
    ServingError,
)
from serving.wire.management_client import ManagementClient

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
