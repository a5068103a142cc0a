"""manifest.json: describes a model, selects the engine that serves it, and labels its outputs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError, field_validator, model_validator
from pydantic_core import ErrorDetails

from serving.domain.answer_counts import AnswerCounts
from serving.domain.bounded import Part, at_most
from serving.domain.confidence import Confidence
from serving.domain.errors import InvalidManifest
from serving.domain.pipelines.pipeline import ALGORITHM as PIPELINE
from serving.domain.pipelines.pipeline import Pipeline
from serving.domain.strict_json import NotStrictJson, parse_json

MAX_MANIFEST_BYTES: Final = 8 << 20
"""Largest manifest that is read, in bytes: that of 30,000 labels of 100 bytes, which a trained model lists twice."""

# Each value takes up to a hundred bytes of memory, and two bytes of the file.
_MAX_VALUES: Final = 1 << 18
_MOST_FILES: Final = 256
_MAX_FAULTS_REPORTED: Final = 5


_SHAPES: Final = ((str, "text"), (int | float, "a number"), (list, "a list"), (dict, "an object"))
_SHAPES_WANTED: Final = {
    "string_type": "text",
    "int_type": "an integer",
    "float_type": "a number",
    "bool_type": "true or false",
    "tuple_type": "a list",
    "list_type": "a list",
    "dict_type": "an object",
    "mapping_type": "an object",
    "model_type": "an object",
    "model_attributes_type": "an object",
}
_CLASSES_WANTED: Final = 'an object from index to label, such as {"0": "greeting", "1": "farewell"}'


class FileSum(Part):
    """Required size and SHA-256 sum of a file of the model."""

    size: int = Field(ge=0)
    """Size in bytes."""
    sha256: str = Field(pattern=r"^[0-9a-f]{64}\z")


class OpenInferenceModel(Part):
    """Names of a model and its tensors on a server of the Open Inference Protocol."""

    model: str = Field(default="", max_length=256)
    """Name of the model; empty: the manifest's ModelName or, if that is empty, the model id without its version."""
    version: str = Field(default="", max_length=256)
    """Version of the model; empty: the server chooses or, if the manifest gives no name, that of the model id."""
    input: str = Field(default="document", min_length=1, max_length=256)
    """The BYTES input tensor for documents."""
    shape: Annotated[tuple[int, ...], at_most(8)] = Field(default=(-1, 1), min_length=1)
    """Shape of the input; -1 is the number of documents. Without a -1, documents are sent one by one."""
    contents: Literal["raw", "typed"] = "raw"
    """Form in which documents are sent."""
    max_batch_size: int = Field(default=64, ge=1, le=4096)
    """Maximum number of documents in one request."""
    label: str | None = Field(default=None, min_length=1, max_length=256)
    """The BYTES output with the label of each document."""
    score: str | None = Field(default=None, min_length=1, max_length=256)
    """The float output with the score of each label."""
    logits: str | None = Field(default=None, min_length=1, max_length=256)
    """The float output with a row of logits for each document, in the order of ``classes``."""

    @field_validator("shape")
    @classmethod
    def _of_documents(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if any(size not in (-1, 1) for size in value) or value.count(-1) > 1:
            raise ValueError("must consist of sizes of 1 and at most one -1")
        return value

    @model_validator(mode="before")
    @classmethod
    def _with_outputs(cls, value: object) -> object:
        if isinstance(value, dict) and not {"label", "score", "logits"} & value.keys():
            return value | {"label": "label", "score": "score"}
        return value

    @model_validator(mode="after")
    def _labels_or_logits(self) -> Self:
        if (self.label is None) == (self.logits is None):
            raise ValueError("must name either the output of labels or the output of logits, not both")
        return self


class ModelExample(Part):
    """Document that an intact copy of the model can answer. The document is sent before a version goes live."""

    document: str = Field(max_length=65_536)
    label: str | None = Field(default=None, min_length=1)
    """Required best label, whatever the threshold; ``None``: any answer is accepted."""


class Manifest(BaseModel):
    """A validated manifest.

    Manifests of the book's system are only certain to have ``Algorithm`` and ``classes``. Unknown keys are kept in
    ``model_extra`` and written back by :meth:`to_json`.
    """

    model_config = ConfigDict(extra="allow", frozen=True)

    algorithm: str = Field(alias="Algorithm", min_length=1, max_length=256)
    """Algorithm, from which the frontend's routes select the engine."""
    classes: Mapping[str, str] = Field(default_factory=dict)
    """Label of each output by its index, a decimal string: "0" to "n-1" without a gap."""
    model_name: str = Field(default="", alias="ModelName", max_length=256)
    model_version: str = Field(default="", alias="ModelVersion", max_length=256)
    tokenizer: str | None = Field(default=None, alias="Tokenizer", min_length=1, max_length=256)
    """Tokenizer of the documents; ``None``: the predictor infers the tokenizer from the vocabulary."""
    fc_size: int | None = Field(default=None, ge=1, le=(1 << 31) - 1, strict=True)
    """Width of the hidden layer, in newer manifests of the book's system; only the network's shapes count."""
    files: Annotated[Mapping[str, FileSum], at_most(_MOST_FILES)] = Field(default_factory=dict, alias="Files")
    """Required sizes and sums of the model's other files, by name; verified if present."""
    confidence: Confidence = Field(default_factory=Confidence, alias="Confidence")
    """Conversion of scores into probabilities, and the minimum score of an answer."""
    baseline: AnswerCounts | None = Field(default=None, alias="Baseline")
    """Counts of the model's answers to its validation texts; later answers are compared with these counts."""
    example: ModelExample | None = Field(default=None, alias="Example")
    """Document that the model answers before going live; without one, the model answers an arbitrary document."""
    open_inference: OpenInferenceModel = Field(default_factory=OpenInferenceModel, alias="OpenInference")
    """Names on the engine's server, if the engine speaks the Open Inference Protocol."""
    _pipeline: Pipeline | None = PrivateAttr(default=None)

    @field_validator("model_version", "model_name", mode="before")
    @classmethod
    def _as_text(cls, value: object) -> object:
        # Hand-written manifests have 1.0 without quotes, and null for missing values.
        if value is None:
            return ""
        return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value

    @field_validator("classes", mode="before")
    @classmethod
    def _by_index(cls, value: object) -> object:
        if not isinstance(value, dict):
            raise ValueError(f"is {_shape_of(value)}, and must be {_CLASSES_WANTED}")  # noqa: TRY004 - pydantic expects it
        odd = next((label for label in value.values() if not isinstance(label, str)), None)
        is_turned = bool(value) and not any(index.isdecimal() for index in value)
        if is_turned and all(isinstance(label, int) or str(label).isdecimal() for label in value.values()):
            raise ValueError(f"is an object from label to index; turn it around, into {_CLASSES_WANTED}")
        if odd is not None or None in value.values():
            raise ValueError(f"has a label that is {_shape_of(odd)}, and must be {_CLASSES_WANTED}")
        return value

    @field_validator("classes")
    @classmethod
    def _without_a_gap(cls, value: Mapping[str, str]) -> Mapping[str, str]:
        missing = next((index for index in range(len(value)) if str(index) not in value), None)
        if missing is not None:
            raise ValueError(f"has {len(value)} labels, but none for index {missing}")
        return value

    @model_validator(mode="after")
    def _with_its_steps(self) -> Self:
        # Keys of a pipeline mean nothing in the manifest of another model, which may have them for its own purposes.
        further = self.model_extra or {}
        if self.algorithm == PIPELINE:
            self._pipeline = Pipeline.parse(further)
        elif self.algorithm.strip().lower() == PIPELINE and "Steps" in further:
            raise ValueError(f'Algorithm is {json.dumps(self.algorithm)}; write "{PIPELINE}"')
        return self

    @property
    def pipeline(self) -> Pipeline | None:
        """The pipeline that the manifest defines; ``None`` for any other model."""
        return self._pipeline

    @property
    def is_elsewhere(self) -> bool:
        """Whether no other file is needed here: the model is on another server, or is a pipeline."""
        return "open_inference" in self.model_fields_set or self._pipeline is not None

    @property
    def labels(self) -> tuple[str, ...]:
        """Labels in the order of the outputs."""
        return tuple(self.classes[str(index)] for index in range(len(self.classes)))

    def with_files(self, files: Mapping[str, FileSum]) -> Self:
        """Return the same manifest with these sizes and sums of files."""
        return self.model_copy(update={"files": files})

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Return the manifest that ``data`` holds.

        Raises:
            InvalidManifest: the data is larger than :data:`MAX_MANIFEST_BYTES`, is not UTF-8 JSON, has a duplicate key,
                a number that is not finite or values of the wrong kind, or is nested too deeply or has too many
                values. The message names the faults by key.
        """
        if len(data) > MAX_MANIFEST_BYTES:
            raise InvalidManifest(
                f"manifest.json has {len(data)} bytes; at most {MAX_MANIFEST_BYTES} are read, so shorten its labels"
            )
        if sum(map(data.count, (b",", b"[", b"{"))) > _MAX_VALUES:
            raise InvalidManifest("manifest.json has more values than any model needs; use fewer labels")
        try:
            document = parse_json(data)
        except NotStrictJson as error:
            raise InvalidManifest(f"manifest.json cannot be read: {error}") from None
        if not isinstance(document, dict):
            raise InvalidManifest("manifest.json must hold one JSON object")
        try:
            return cls.model_validate(document)
        except ValidationError as error:
            raise InvalidManifest(f"manifest.json: {_faults(error)}") from error

    def to_json(self) -> str:
        """Return the manifest as JSON text, including unknown keys."""
        return json.dumps(self.model_dump(by_alias=True, exclude_unset=True), indent=2, ensure_ascii=False) + "\n"


def _said(fault: ErrorDetails) -> str:
    wanted = _SHAPES_WANTED.get(fault["type"])
    if wanted is None:
        return fault["msg"].removeprefix("Value error, ")
    return f"is or has {_shape_of(fault['input'])} where {wanted} is expected"


def _shape_of(value: object) -> str:
    """Return what a JSON value is, never the value itself."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true or false"
    return next((shape for kind, shape in _SHAPES if isinstance(value, kind)), "another value")


def _faults(error: ValidationError) -> str:
    every = (
        ": ".join((*(str(part)[:32] for part in fault["loc"][:1]), _said(fault)))
        for fault in error.errors(include_url=False)
    )
    faults = list(dict.fromkeys(every))
    reported = "; ".join(faults[:_MAX_FAULTS_REPORTED])
    more = len(faults) - _MAX_FAULTS_REPORTED
    return f"{reported}; and {more} more" if more > 0 else reported
