"""``intentctl doctor``: find faults in a model, and in the queries that it receives."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from intent_serving_client.channels import ChannelOptions
from intentctl.connection import connecting, fail_unanswered
from intentctl.output import EXIT_FAILED, EXIT_USAGE, AsJson, fail
from serving.domain.errors import (
    DeadlineExceeded,
    InvalidConnection,
    InvalidModelId,
    ModelNotFound,
    ServingError,
    Unavailable,
)
from serving.domain.model_id import ModelId, parse_model_id
from serving.volume.inventory import Inventory
from serving.volume.model_store import ModelStore
from serving.wire.traffic_client import ModelTraffic, ask_traffic

if TYPE_CHECKING:
    from intentctl.doctor.examine import Examination


@connecting
def doctor(
    model_id: Annotated[str, typer.Argument(help="Id of the model: the name of its folder.", show_default=False)],
    *,
    model_dir: Annotated[
        Path, typer.Option(envvar="MODEL_DIR", file_okay=False, help="Folder with one folder per model.")
    ] = Path("models"),
    predictor: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT",
            help="Running predictor, whose queries are examined too, and compared with the model's baseline.",
            show_default=False,
        ),
    ] = None,
    timeout: Annotated[float, typer.Option(min=0.001, help="Time limit of the predictor's answer, in seconds.")] = 10.0,
    as_json: AsJson = False,
    connection: ChannelOptions,
) -> None:
    """Look for faults in a model: in its files, tokenizer, labels and weights, and in the queries that it receives.

    The exit code is 0 if there are no findings other than notes, and 1 if there are errors or warnings.
    """
    from intentctl.doctor.live import drift_from_validation, findings_of  # noqa: PLC0415 - deferred, as is the rest of its package
    from intentctl.doctor.report import Report, print_report  # noqa: PLC0415

    checked_id = _checked(model_id)
    if not model_dir.is_dir():
        fail(f"--model-dir {model_dir} is not a folder", EXIT_USAGE)
    checked_id = _answering(model_dir, checked_id)
    examination = _examined(model_dir, checked_id)
    manifest, findings = examination.manifest, list(examination.findings)
    traffic = drift = unreachable = None
    if predictor is not None and manifest is not None and manifest.pipeline is not None:
        fail("no predictor has a pipeline; leave out --predictor, or examine the models that it asks", EXIT_USAGE)
    if predictor is not None:
        try:
            traffic = _traffic(predictor, checked_id, timeout, connection)
        except ServingError as error:
            unreachable = error
        else:
            drift = drift_from_validation(manifest, traffic)
            findings += findings_of(manifest, traffic, drift)
    report = Report(checked_id, findings, traffic, drift)
    print_report(report, as_json=as_json)
    if unreachable is not None:
        if predictor is not None and isinstance(unreachable, Unavailable | DeadlineExceeded):
            fail_unanswered(predictor, unreachable, connection)
        is_unusable = isinstance(unreachable, InvalidConnection)
        fail(str(unreachable), EXIT_USAGE if is_unusable else EXIT_FAILED)
    if not report.is_healthy:
        raise typer.Exit(EXIT_FAILED)


def _checked(model_id: str) -> ModelId:
    try:
        return parse_model_id(model_id)
    except InvalidModelId as error:
        fail(str(error).replace("runId", "the model id"), EXIT_USAGE)


def _answering(model_dir: Path, model_id: ModelId) -> ModelId:
    """Return the version that a name or a label means, or the model itself."""
    try:
        return Inventory(ModelStore(model_dir)).answering(model_id)
    except ModelNotFound:
        return model_id  # the examination reports it
    except ServingError as error:
        fail(str(error))


def _examined(model_dir: Path, model_id: ModelId) -> Examination:
    try:
        # The module needs the predictor's packages, which take a moment to import.
        from intentctl.doctor.examine import examine  # noqa: PLC0415
    except ModuleNotFoundError as error:
        fail(f"reading models requires the predictor's packages; {error.name} is not installed")
    try:
        return examine(model_dir, model_id)
    except ModelNotFound:
        fail(
            f"there is no model {model_id} in the folder {model_dir}; `intentctl models` lists the models",
            EXIT_USAGE,
        )
    except ServingError as error:
        fail(str(error))


def _traffic(address: str, model_id: ModelId, timeout: float, connection: ChannelOptions) -> ModelTraffic | None:
    found = ask_traffic(address, model_id=model_id, timeout=timeout, options=connection)
    return found[0] if found else None
