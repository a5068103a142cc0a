"""Clients of Intent Serving, blocking and for asyncio.

with IntentClient("127.0.0.1:51001") as client:
    print(client.predict("clinc150", "wake me up at seven").label)
"""

from intent_serving_client.channels import ChannelOptions
from intent_serving_client.client import AsyncIntentClient, IntentClient
from intent_serving_client.errors import (
    DeadlineExceeded,
    InvalidConnection,
    InvalidRequest,
    ModelExists,
    ModelNotFound,
    ModelUnusable,
    OutOfCapacity,
    PermissionDenied,
    ReleaseConflict,
    RemoteError,
    ServingError,
    Unauthenticated,
    Unavailable,
)
from intent_serving_client.explanation import Explanation, LabelExplanation
from intent_serving_client.management_client import ManagementClient
from intent_serving_client.prediction import Fallback, Outcome, Prediction, Query, ScoredLabel
from intent_serving_client.version import VERSION

__all__ = [
    "VERSION",
    "AsyncIntentClient",
    "ChannelOptions",
    "DeadlineExceeded",
    "Explanation",
    "Fallback",
    "IntentClient",
    "InvalidConnection",
    "InvalidRequest",
    "LabelExplanation",
    "ManagementClient",
    "ModelExists",
    "ModelNotFound",
    "ModelUnusable",
    "OutOfCapacity",
    "Outcome",
    "PermissionDenied",
    "Prediction",
    "Query",
    "ReleaseConflict",
    "RemoteError",
    "ScoredLabel",
    "ServingError",
    "Unauthenticated",
    "Unavailable",
]
