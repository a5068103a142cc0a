"""``intentctl explain``: show why a model gives its answer."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from intent_serving_client.channels import ChannelOptions
from intent_serving_client.client import IntentClient
from intent_serving_client.client_base import DEFAULT_ADDRESS
from intentctl.connection import connecting, fail_unanswered
from intentctl.explanations.account import accounts_of, answer_of
from intentctl.explanations.terminal import print_account
from intentctl.output import EXIT_USAGE, AsJson, console, fail, print_json, print_line
from intentctl.predictions import as_dict
from intentctl.shares import Threshold
from serving.domain.errors import DeadlineExceeded, InvalidConnection, ServingError, Unavailable
from serving.domain.explanation import Explanation
from serving.domain.prediction import Prediction, Query


@connecting
def explain(
    model_id: Annotated[str, typer.Argument(help="Id of the model: the name of its folder.", show_default=False)],
    document: Annotated[str, typer.Argument(help="Text to explain.", show_default=False)],
    *,
    labels: Annotated[
        list[str] | None,
        typer.Option(
            "--label", metavar="LABEL", help="Explain this label, too, in addition to the best one.", show_default=False
        ),
    ] = None,
    frontend: Annotated[str, typer.Option(metavar="HOST:PORT", help="Address of the frontend.")] = DEFAULT_ADDRESS,
    timeout: Annotated[float, typer.Option(min=0.001, help="Time limit of the call, in seconds.")] = 10.0,
    model_dir: Annotated[
        Path | None,
        typer.Option(file_okay=False, help="Use this model folder instead of a service.", show_default=False),
    ] = None,
    threshold: Threshold = None,
    top: Annotated[int, typer.Option(min=0, help="Show the N strongest tokens one by one.")] = 10,
    html: Annotated[Path | None, typer.Option(dir_okay=False, help="Write a self-contained HTML page.")] = None,
    png: Annotated[Path | None, typer.Option(dir_okay=False, help="Write a PNG; needs matplotlib.")] = None,
    as_json: AsJson = False,
    connection: ChannelOptions,
) -> None:
    """Show what each word of a text adds to the answer. The figures are exact, because the network is linear.

    On a terminal, words that speak for the label have a blue background, and words that speak against it an orange one.
    Words that the model does not know are enclosed in ~. Each n-gram is shared equally by the words that it touches.
    """
    query = Query(model_id, document, threshold=threshold, explain=tuple(labels or ()))
    prediction = (
        _from_service(query, frontend, timeout, connection) if model_dir is None else _from_folder(query, model_dir)
    )
    explanation = prediction.explanation or _none()
    accounts = accounts_of(prediction, explanation)
    if html is not None:
        from intentctl.explanations.page import html_page  # noqa: PLC0415 - rarely needed

        model = f"{prediction.model_id} {prediction.model_version}".strip()
        page = html_page(accounts, document, model=model, answer=answer_of(prediction), top=top)
        try:
            html.write_bytes(page)
        except OSError as error:
            fail(f"{html} cannot be written: {error.strerror}")
    if png is not None:
        from intentctl.explanations.plot import draw  # noqa: PLC0415

        try:
            draw(accounts, answer_of(prediction), top, png)
        except ModuleNotFoundError as error:
            fail(f"--png needs matplotlib; {error.name} is not installed")
        except OSError as error:
            fail(f"{png} cannot be written: {error.strerror}")
    if as_json:
        explained = [account.as_dict() for account in accounts]
        of_model = {"explained_model": explanation.model_id} if explanation.model_id else {}
        parts = {"temperature": explanation.temperature, **of_model, "explained": explained}
        print_json(as_dict(document, prediction) | parts)
        return
    print_line(answer_of(prediction))
    for account in accounts:
        console.print()
        print_account(account, document, top)


def _from_service(query: Query, address: str, timeout: float, connection: ChannelOptions) -> Prediction:
    try:
        with IntentClient(address, timeout=timeout, options=connection) as client:
            return client.explain(query.model_id, query.document, query.explain or (), threshold=query.threshold)
    except InvalidConnection as error:
        fail(str(error), EXIT_USAGE)
    except (Unavailable, DeadlineExceeded) as error:
        fail_unanswered(address, error, connection, instead=", and --model-dir needs none")
    except ServingError as error:
        fail(str(error))


def _from_folder(query: Query, model_dir: Path) -> Prediction:
    if not model_dir.is_dir():
        fail(f"--model-dir {model_dir} is not a folder", EXIT_USAGE)
    try:
        from predictor.model.loader import FileLimits, Loader  # noqa: PLC0415 - imports NumPy, not needed with a service
    except ModuleNotFoundError as error:
        fail(f"--model-dir requires the predictor's packages; {error.name} is not installed; query a service instead")
    from serving.domain.model_id import parse_model_id  # noqa: PLC0415
    from serving.volume.inventory import Inventory  # noqa: PLC0415
    from serving.volume.model_store import ModelStore  # noqa: PLC0415

    try:
        store = ModelStore(model_dir)
        checked_id = Inventory(store).answering(parse_model_id(query.model_id))
        loader = Loader(store, FileLimits())
        (outcome,) = loader.load(checked_id, loader.fingerprint(checked_id)).predict([query])
    except ServingError as error:
        fail(str(error))
    if isinstance(outcome, ServingError):
        fail(str(outcome))
    return outcome


def _none() -> Explanation:
    fail("the frontend returned no explanation; update the services to the version of intentctl")
