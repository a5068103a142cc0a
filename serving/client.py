"""Public names of the Python clients, which are a package of their own: ``intent_serving_client``.

with IntentClient("127.0.0.1:51001") as client:
    print(client.predict("clinc150", "wake me up at seven").label)
"""

from intent_serving_client import (
    AsyncIntentClient,
    ChannelOptions,
    Explanation,
    Fallback,
    IntentClient,
    LabelExplanation,
    ManagementClient,
    Outcome,
    Prediction,
    Query,
    ScoredLabel,
    ServingError,
)

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
