"""Public names of the Python clients.

with IntentClient("127.0.0.1:51001") as client:
    print(client.predict("clinc150", "wake me up at seven").label)
"""

from serving.domain.errors import ServingError
from serving.domain.explanation import Explanation, LabelExplanation
from serving.domain.prediction import Fallback, Outcome, Prediction, Query, ScoredLabel
from serving.wire.channels import ChannelOptions
from serving.wire.client import AsyncIntentClient, IntentClient
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
