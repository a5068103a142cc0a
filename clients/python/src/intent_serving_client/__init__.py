"""Clients of Intent Serving, blocking and for asyncio.

with IntentClient("127.0.0.1:51001") as client:
    print(client.predict("clinc150", "wake me up at seven").label)

The names below are imported when they are first used: programs that need the terms alone, such as the services
themselves, load neither stubs nor channels.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
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

_MODULES = {
    "channels": ("ChannelOptions",),
    "client": ("AsyncIntentClient", "IntentClient"),
    "errors": (
        "DeadlineExceeded",
        "InvalidConnection",
        "InvalidRequest",
        "ModelExists",
        "ModelNotFound",
        "ModelUnusable",
        "OutOfCapacity",
        "PermissionDenied",
        "ReleaseConflict",
        "RemoteError",
        "ServingError",
        "Unauthenticated",
        "Unavailable",
    ),
    "explanation": ("Explanation", "LabelExplanation"),
    "management_client": ("ManagementClient",),
    "prediction": ("Fallback", "Outcome", "Prediction", "Query", "ScoredLabel"),
    "version": ("VERSION",),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}

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

if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        """Import a public name."""
        module = _MODULE_OF.get(name)
        if module is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return globals().setdefault(name, getattr(import_module(f"{__name__}.{module}"), name))
