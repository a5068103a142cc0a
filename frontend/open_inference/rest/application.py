"""The REST API of the protocol as an ASGI application. Paths are those of KServe and Triton."""

from __future__ import annotations

from typing import Any, Final

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from frontend.open_inference.rest.calls import RestCalls
from frontend.open_inference.rest.endpoint import Endpoint, Serve
from frontend.open_inference.rest.refusals import refusal
from grpc_http2.server.plain_http.http_exchange import Application
from serving.call.identity import OPEN, Requirement, Right
from serving.stubs import open_inference_pb2_grpc as pb_grpc
from serving.transport.boundary import Boundary

_MODEL: Final = "/v2/models/{model}"
_VERSION: Final = _MODEL + "/versions/{version}"
_REPOSITORY: Final = "/v2/repository"


def rest_application(
    servicer: pb_grpc.GRPCInferenceServiceServicer, max_body_bytes: int, boundary: Boundary
) -> Application:
    """Return the application that answers as ``servicer`` does.

    Args:
        servicer: servicer of the gRPC API.
        max_body_bytes: maximum size of a body in bytes, compressed or not.
        boundary: boundary that guards every call.
    """
    calls = RestCalls(servicer)

    def route(method: str, path: str, serve: Serve, right: Requirement = Right.PREDICT) -> Route:
        return Route(path, Endpoint(f"{method} {path}", right, serve, boundary, max_body_bytes), methods=[method])

    routes = [
        route("GET", "/v2", calls.server_metadata),
        route("GET", "/v2/", calls.server_metadata),
        # Health checks need no credential.
        route("GET", "/v2/health/live", calls.server_live, OPEN),
        route("GET", "/v2/health/ready", calls.server_ready, OPEN),
        # Before the model routes: without a further path, ``stats`` is not the name of a model.
        route("GET", "/v2/models/stats", calls.model_statistics),
        route("POST", _REPOSITORY + "/index", calls.repository_index),
        route("POST", _REPOSITORY + "/models/{model}/load", calls.load, Right.MANAGE),
        route("POST", _REPOSITORY + "/models/{model}/unload", calls.unload, Right.MANAGE),
    ]
    for model in (_MODEL, _VERSION):
        routes += [
            route("GET", model, calls.model_metadata),
            route("GET", model + "/ready", calls.model_ready),
            route("GET", model + "/config", calls.model_config),
            route("GET", model + "/stats", calls.model_statistics),
            route("POST", model + "/infer", calls.infer),
        ]
    handlers: Any = {404: _unknown_path, 405: _wrong_method}
    application: Any = Starlette(routes=routes, exception_handlers=handlers)
    # An unknown path is refused: a redirect to a path that happens to be known is no help.
    application.router.redirect_slashes = False
    served: Application = application
    return served


async def _unknown_path(request: Request, error: HTTPException) -> Response:
    del request, error
    return refusal(404, "the path does not exist; the paths of the Open Inference Protocol begin with /v2")


async def _wrong_method(request: Request, error: HTTPException) -> Response:
    del request
    response = refusal(405, "the method is not allowed on this path; the header allow names the allowed method")
    response.headers.update(error.headers or {})
    return response
