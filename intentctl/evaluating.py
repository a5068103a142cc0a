"""Shared parts of ``intentctl evaluate`` and ``intentctl compare``: labelled rows, and a model's answers to them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from intent_serving_client.channels import ChannelOptions
from intent_serving_client.client import IntentClient
from intentctl.connection import fail_unanswered
from intentctl.output import EXIT_UNAVAILABLE, EXIT_USAGE, errors, fail
from serving.domain.confidence import FALLBACK_LABEL
from serving.domain.errors import (
    DeadlineExceeded,
    InvalidConnection,
    InvalidModelId,
    ModelNotFound,
    ServingError,
    Unavailable,
)

if TYPE_CHECKING:
    from evaluation.answers import Answers
    from evaluation.asking import OnAnswers
    from evaluation.evaluation import Labelled


class Split(StrEnum):
    """A split of a data file."""

    TEST = "test"
    VALIDATION = "validation"
    TRAIN = "train"


Data = Annotated[
    Path,
    typer.Argument(
        exists=True, dir_okay=False, show_default=False, help="CSV with the columns text,label, or CLINC150's JSON."
    ),
]
SplitOption = Annotated[
    Split | None,
    typer.Option(help="Split of JSON data; test if omitted. All rows of CSV data are used.", show_default=False),
]
ModelDir = Annotated[Path, typer.Option(envvar="MODEL_DIR", file_okay=False, help="Folder with one folder per model.")]
Frontend = Annotated[
    str | None,
    typer.Option(
        metavar="HOST:PORT",
        help="Send queries to a running frontend, whatever the model's engine, instead of using the model folder.",
        show_default=False,
    ),
]
Timeout = Annotated[float, typer.Option(min=0.001, help="Time limit of a call to the frontend, in seconds.")]
OutOfScope = Annotated[
    list[str] | None,
    typer.Option(
        metavar="LABEL",
        help=f"Label of rows that are out of scope, in addition to {FALLBACK_LABEL} and the model's fallback label.",
        show_default=False,
    ),
]


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows of a split."""

    rows: tuple[Labelled, ...]
    file: str
    sha256: str
    split: Split | None
    """Split that the rows are from; ``None`` for a file without splits."""

    @property
    def texts(self) -> list[str]:
        """Texts that a model is asked to classify."""
        return [row.text for row in self.rows]

    def __str__(self) -> str:
        return self.file if self.split is None else f"{self.file} ({self.split.value})"

    def as_dict(self) -> dict[str, Any]:
        """Return the source of the rows, as JSON fields."""
        return {"file": self.file, "sha256": self.sha256, "split": None if self.split is None else self.split.value}


def read_rows(path: Path, split: Split | None) -> Rows:
    """Return the rows of a data file, or exit and say what is wrong with it."""
    from training.errors import TrainingError  # noqa: PLC0415
    from training.readers import read_data  # noqa: PLC0415

    with _packages():
        from evaluation.evaluation import Labelled  # noqa: PLC0415

    has_splits = path.suffix == ".json"
    if split is not None and not has_splits:
        fail(f"{path.name} is a CSV file, which has no splits; omit --split", EXIT_USAGE)
    try:
        data = read_data(path)
    except TrainingError as error:
        fail(str(error), EXIT_USAGE)
    chosen = (split or Split.TEST) if has_splits else None
    examples = data.train if chosen is None else getattr(data, chosen.value)
    if not examples:
        fail(f"{path.name} has no rows in the split {chosen.value if chosen else ''}; name another", EXIT_USAGE)
    (source,) = data.sources
    return Rows(tuple(Labelled(row.text, row.label) for row in examples), source.file, source.sha256, chosen)


@dataclass(frozen=True, slots=True)
class Asking:
    """Location of the models, and settings of the queries to them."""

    model_dir: Path
    frontend: str | None
    """Address of the frontend that answers instead of the folder."""
    timeout: float
    """Timeout of a call to the frontend, in seconds."""
    threshold: float | None
    """Threshold that replaces the models' own."""
    connection: ChannelOptions
    """Options of the connection to the frontend."""

    def answers(self, model_id: str, texts: Sequence[str]) -> Answers:
        """Return the answers of a model, or exit and say why there are none."""
        with _packages():
            from evaluation.errors import RowRefused  # noqa: PLC0415

        if self.frontend is None and not self.model_dir.is_dir():
            fail(f"--model-dir {self.model_dir} is not a folder; name one, or give --frontend", EXIT_USAGE)
        try:
            with _progress(model_id, len(texts)) as on_answers:
                return self._ask(model_id, texts, on_answers)
        except RowRefused as error:
            fail(str(error), EXIT_USAGE)
        except InvalidConnection as error:
            fail(str(error), EXIT_USAGE)
        except (Unavailable, DeadlineExceeded) as error:
            if self.frontend is None:
                fail(str(error), EXIT_UNAVAILABLE)
            fail_unanswered(self.frontend, error, self.connection)
        except InvalidModelId as error:
            fail(str(error).replace("runId", "the model id"), EXIT_USAGE)
        except ModelNotFound:
            place = "at the frontend" if self.frontend else f"in the folder {self.model_dir}"
            listing = "`intentctl models --frontend`" if self.frontend else "`intentctl models`"
            fail(f"there is no model {model_id} {place}; {listing} lists the models", EXIT_USAGE)
        except ServingError as error:
            fail(f"{model_id}: {error}")

    def _ask(self, model_id: str, texts: Sequence[str], on_answers: OnAnswers) -> Answers:
        from evaluation.asking import ask_folder, ask_frontend  # noqa: PLC0415

        if self.frontend is None:
            return ask_folder(self.model_dir, model_id, texts, threshold=self.threshold, on_answers=on_answers)
        with IntentClient(self.frontend, timeout=self.timeout, options=self.connection) as client:
            return ask_frontend(client, model_id, texts, threshold=self.threshold, on_answers=on_answers)

    def described(self, answers: Answers) -> dict[str, Any]:
        """Return the model that answered, as JSON fields."""
        return {
            "id": answers.model_id,
            "version": answers.model_version,
            "labels": None if answers.labels is None else len(answers.labels),
            "fallback": answers.fallback,
            "threshold": answers.threshold,
            "asked": "folder" if self.frontend is None else "frontend",
        }


def out_of_scope_labels(option: list[str] | None) -> tuple[str, ...]:
    """Return the labels of rows that are out of scope for every model."""
    return (FALLBACK_LABEL, *(option or ()))


def percent(value: float | None) -> str:
    """Return a share as a percentage; an empty string for a share of no rows."""
    return "" if value is None else f"{value:.2%}"


@contextmanager
def _packages() -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError as error:
        fail(f"this requires the predictor's packages; {error.name} is not installed")


@contextmanager
def _progress(model_id: str, rows: int) -> Iterator[OnAnswers]:
    """Yield a callback that shows the number of answered rows on a terminal."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn  # noqa: PLC0415

    columns = (TextColumn("{task.description}", markup=False), MofNCompleteColumn(), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=errors, transient=True, disable=not errors.is_terminal) as progress:
        task = progress.add_task(f"querying {model_id}", total=rows)
        yield lambda more: progress.update(task, advance=more)
