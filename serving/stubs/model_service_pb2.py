"""The stubs of ``proto/model_service.proto``, which the client brings."""

from intent_serving_client.stubs.model_service_pb2 import *
