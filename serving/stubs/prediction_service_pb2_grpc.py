"""The stubs of ``proto/prediction_service.proto``, which the client brings."""

from intent_serving_client.stubs.prediction_service_pb2_grpc import *
