"""JSON requests of callers as typed objects."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, FailFast, Field, ValidationError, model_validator

from serving.domain.errors import InvalidRequest
from serving.domain.strict_json import NotStrictJson, parse_json

_MOST_DIMENSIONS: Final = 16
_LEAST_INTEGER: Final = -(1 << 63)
_MOST_INTEGER: Final = (1 << 64) - 1

Value = bool | int | float | str
"""Value of a parameter. Integers have 64 bits, signed or unsigned."""


def _checked(parameters: Mapping[str, Any]) -> Mapping[str, Value]:
    # Checked here and not by pydantic, so that only one of thousands of faults is reported. Some clients write null for
    # every parameter that they do not set.
    given = {name: value for name, value in parameters.items() if value is not None}
    for value in given.values():
        if not isinstance(value, Value):
            raise ValueError("values must be strings, numbers, true or false")  # noqa: TRY004 - pydantic expects it
        if isinstance(value, int) and not _LEAST_INTEGER <= value <= _MOST_INTEGER:
            raise ValueError("integers must have at most 64 bits")
    return given


Parameters = Annotated[dict[str, Any], AfterValidator(_checked)]
Dimension = Annotated[int, Field(ge=0, lt=1 << 63)]


class RestRequest(BaseModel):
    """Base of all objects: unknown keys are ignored, and ``null`` means no value."""

    # Faults are logged, and must not contain callers' texts.
    model_config = ConfigDict(strict=True, frozen=True, extra="ignore", hide_input_in_errors=True)

    parameters: Parameters = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, value: object) -> object:
        if isinstance(value, dict):
            return {key: part for key, part in value.items() if part is not None}
        return value


class RestInput(RestRequest):
    """Input tensor."""

    name: str
    datatype: str
    shape: Annotated[list[Dimension], FailFast()] = Field(max_length=_MOST_DIMENSIONS)
    data: list[Any] | None = None
    """Elements; ``None``: they are sent as binary data."""


class RestOutput(RestRequest):
    """Requested output tensor."""

    name: str


class RestInference(RestRequest):
    """Inference requested from a model."""

    id: str = ""
    inputs: Annotated[list[RestInput], FailFast()]
    outputs: Annotated[list[RestOutput], FailFast()] = Field(default_factory=list)


class RestIndex(RestRequest):
    """Criteria for the models to list."""

    ready: bool = False


AnyRequest = TypeVar("AnyRequest", bound=RestRequest)


def parse_request(kind: type[AnyRequest], body: bytes) -> AnyRequest:
    """Return the request that a body contains; an empty body counts as an object without keys.

    Raises:
        InvalidRequest: the body is not JSON, or has a fault, whose location the message names.
    """
    try:
        return kind.model_validate(parse_json(body) if body else {})
    except NotStrictJson as error:
        raise InvalidRequest(f"the body cannot be read: {error}") from None
    except ValidationError as error:
        raise InvalidRequest(f"the body cannot be read: {_first_fault(error)}") from error


def _first_fault(error: ValidationError) -> str:
    fault = error.errors(include_url=False, include_input=False, include_context=False)[0]
    place = ".".join(str(part) for part in fault["loc"]) or "the body"
    if fault["type"] == "model_type":
        return f"{place} must be a JSON object"
    return f"{place}: {fault['msg'].removeprefix('Value error, ')}"
