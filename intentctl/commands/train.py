"""``intentctl train``: turn labelled texts into a folder that the predictor serves."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from intentctl.output import EXIT_USAGE, AsJson, Column, errors, fail, print_json, print_table
from serving.domain.confidence import Confidence
from serving.domain.errors import InvalidModelId, ServingError
from serving.domain.model_id import MAX_MODEL_ID_BYTES, ModelId, parse_model_id, reference_of
from training.recipe import Recipe

if TYPE_CHECKING:
    from training.data import DataSet
    from training.model import Figures, TrainedModel
    from training.trainer import Epoch, OnEpoch

_RECIPE: Final = Recipe()
_FIRST_VERSION: Final = "1.0"


def train(
    data: Annotated[
        Path,
        typer.Argument(
            exists=True, dir_okay=False, show_default=False, help="CSV with the columns text,label, or CLINC150's JSON."
        ),
    ],
    *,
    model_id: Annotated[
        str,
        typer.Option(
            help="Id of the model, which is the runId of calls and the name of its folder; or name@version.",
            show_default=False,
        ),
    ],
    model_dir: Annotated[
        Path, typer.Option(envvar="MODEL_DIR", file_okay=False, help="Folder with one folder per model.")
    ] = Path("models"),
    model_version: Annotated[
        str | None,
        typer.Option(
            help="Version of the model, returned with every answer; if omitted, that of the id, or 1.0.",
            show_default=False,
        ),
    ] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Replace the existing model of this id.")] = False,
    test: Annotated[
        Path | None,
        typer.Option(
            exists=True, dir_okay=False, help="CSV on which the finished model is measured, and nothing else."
        ),
    ] = None,
    validation_fraction: Annotated[
        float | None,
        typer.Option(
            min=0.01,
            max=0.5,
            help="Share of each label kept for validation if the data has no validation split; if omitted, a tenth, "
            "or cross-validation in place of it if that would be fewer than 200 texts.",
            show_default=False,
        ),
    ] = None,
    label: Annotated[
        list[str] | None, typer.Option(help="Train on this label only; repeatable. If omitted, on all labels.")
    ] = None,
    domains: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="JSON that maps domains to lists of labels.")
    ] = None,
    domain: Annotated[list[str] | None, typer.Option(help="Train on the labels of this domain; repeatable.")] = None,
    without_oos: Annotated[
        bool, typer.Option("--without-oos", help="Leave out the rows that are out of scope: those labelled oos.")
    ] = False,
    seed: Annotated[int, typer.Option(min=0, max=(1 << 32) - 1, help="The same seed gives the same model.")] = 0,
    tokenizer: Annotated[
        str, typer.Option(help="Tokenizer of the texts; without +, there are no n-grams.")
    ] = _RECIPE.tokenizer,
    max_bytes: Annotated[
        int,
        typer.Option(
            min=20_000, help="Maximum size of the model's folder, in bytes; it determines how many n-grams are kept."
        ),
    ] = _RECIPE.max_bytes,
    dimensions: Annotated[
        int, typer.Option(min=1, help="Number of dimensions of the embedding of a token.")
    ] = _RECIPE.dimensions,
    fc_size: Annotated[
        int | None, typer.Option(min=1, help="Outputs of a linear layer before the last one; no such layer if omitted.")
    ] = _RECIPE.fc_size,
    epochs: Annotated[int, typer.Option(min=1, help="Maximum number of passes over the texts.")] = _RECIPE.epochs,
    patience: Annotated[
        int, typer.Option(min=1, help="Number of passes without a better result after which training stops.")
    ] = _RECIPE.patience,
    token_dropout: Annotated[
        float, typer.Option(min=0.0, max=0.95, help="Share of the tokens that are hidden; chosen again in each pass.")
    ] = _RECIPE.token_dropout,
    label_smoothing: Annotated[
        float, typer.Option(min=0.0, max=0.9, help="Share of each target that is spread over all labels.")
    ] = _RECIPE.label_smoothing,
    class_weights: Annotated[
        bool, typer.Option("--class-weights", help="Give rare labels as much weight as frequent ones.")
    ] = _RECIPE.class_weights,
    given_up: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            max=0.5,
            help="Share of the validation texts whose right answer the fallback label may replace; sets the threshold. "
            f"If omitted, {_RECIPE.given_up:g}, and {_RECIPE.given_up_of_few:g} with cross-validation.",
            show_default=False,
        ),
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            max=1.0,
            help="Minimum score of an answer, written into the manifest; if omitted, chosen by --given-up.",
            show_default=False,
        ),
    ] = None,
    fallback_label: Annotated[
        str,
        typer.Option(
            help="Label of answers below the threshold, for the manifest; rows with this label are out of scope."
        ),
    ] = _RECIPE.fallback_label,
    as_json: AsJson = False,
) -> None:
    """Train an intent classifier on labelled texts, and write its folder."""
    # torch takes seconds to import, and --help does not need it.
    from training.data import labels_of  # noqa: PLC0415
    from training.errors import TrainingError  # noqa: PLC0415
    from training.model_folder import check_free, check_labels  # noqa: PLC0415

    checked_id = _checked(model_id)
    if bool(domain) != bool(domains):
        fail("--domains and --domain go together: the file of the domains, and a domain of that file", EXIT_USAGE)
    recipe = Recipe(
        tokenizer=_written(tokenizer),
        max_bytes=max_bytes,
        dimensions=dimensions,
        fc_size=fc_size,
        epochs=epochs,
        patience=patience,
        token_dropout=token_dropout,
        label_smoothing=label_smoothing,
        class_weights=class_weights,
        given_up=_RECIPE.given_up if given_up is None else given_up,
        given_up_of_few=_RECIPE.given_up_of_few if given_up is None else given_up,
        threshold=threshold,
        fallback_label=_checked_label(fallback_label),
    )
    started = time.monotonic()
    try:
        if not replace:
            check_free(model_dir, checked_id)
        chosen = _chosen_data(
            data,
            test=test,
            labels=label or [],
            domains=domains,
            names=domain or [],
            out_of_scope=fallback_label,
            without_oos=without_oos,
        )
        check_labels(labels_of(chosen.train))
        summary = _train(
            chosen.divided(validation_fraction, seed),
            recipe,
            seed=seed,
            model_dir=model_dir,
            model_id=checked_id,
            model_version=model_version or reference_of(checked_id).selector or _FIRST_VERSION,
            replace=replace,
        )
    except (TrainingError, ServingError) as error:
        fail(str(error))
    summary["seconds"] = round(time.monotonic() - started, 1)
    _print_summary(summary, as_json=as_json)


def _checked(model_id: str) -> ModelId:
    try:
        return parse_model_id(model_id)
    except InvalidModelId:
        fail(
            f"--model-id must be 1 to {MAX_MODEL_ID_BYTES} ASCII letters, digits, '.', '_' or '-', "
            "and must not start with '.'; @ and a version of the same letters may follow",
            EXIT_USAGE,
        )


def _checked_label(label: str) -> str:
    from pydantic import ValidationError  # noqa: PLC0415

    try:
        return Confidence(fallback=label.strip()).fallback
    except ValidationError:
        fail("--fallback-label must be 1 to 1,024 characters that are not all white space", EXIT_USAGE)


def _written(tokenizer: str) -> str:
    """Return the tokenizer in the notation of a manifest."""
    from predictor.model.tokenizer import GRAMMAR, Tokenizer  # noqa: PLC0415

    try:
        return str(Tokenizer.parse(tokenizer))
    except ValueError:
        fail(f"--tokenizer must be one of {GRAMMAR}", EXIT_USAGE)


def _chosen_data(
    path: Path,
    *,
    test: Path | None,
    labels: list[str],
    domains: Path | None,
    names: list[str],
    out_of_scope: str,
    without_oos: bool,
) -> DataSet:
    from training.readers import read_data, read_domain, with_test_file  # noqa: PLC0415

    data = read_data(path)
    if test is not None:
        data = with_test_file(data, test)
    wanted = set(labels)
    if domains is not None:
        wanted.update(*(read_domain(domains, name) for name in names))
    if wanted:
        data = data.keeping(wanted | ({out_of_scope} & set(data.labels)))
    return data.without(out_of_scope) if without_oos else data


def _train(
    data: DataSet,
    recipe: Recipe,
    *,
    seed: int,
    model_dir: Path,
    model_id: ModelId,
    model_version: str,
    replace: bool,
) -> dict[str, Any]:
    """Train, measure and write the model; return its summary."""
    from training.model import measure, planned_epochs, train_model  # noqa: PLC0415
    from training.model_folder import Provenance, model_files, write_model_folder  # noqa: PLC0415
    from training.notes import notes_on  # noqa: PLC0415

    with _progress(planned_epochs(data, recipe)) as on_epoch:
        model = train_model(data, recipe, seed, on_epoch)
    figures = measure(model.served, data.test)
    files = model_files(model, figures, Provenance(data, recipe, seed), model_id, model_version)
    folder = write_model_folder(model_dir, model_id, files, replace=replace)
    return _summary(model, figures, model_id, folder) | {"notes": list(notes_on(model, data))}


def _summary(model: TrainedModel, figures: Figures, model_id: ModelId, folder: Path) -> dict[str, Any]:
    return {
        "id": model_id,
        "folder": str(folder),
        "classes": len(model.labels),
        "tokens": len(model.vocabulary),
        "epochs": model.epochs,
        "best_epoch": model.best_epoch,
        "validation_accuracy": model.validation_accuracy,
        "temperature": model.confidence.temperature,
        "threshold": model.confidence.threshold,
        "fallback_label": model.confidence.fallback,
        "test_accuracy_in_scope": figures.in_scope,
        "test_accuracy_in_scope_without_threshold": figures.in_scope_without_threshold,
        "test_recall_out_of_scope": figures.out_of_scope_recall,
        "test_accuracy_with_out_of_scope": figures.overall,
        "test_calibration_error": figures.calibration_error,
    }


@contextmanager
def _progress(epochs: int) -> Iterator[OnEpoch]:
    """Yield a callback that shows each epoch on standard error: as a bar on a terminal, elsewhere as a line."""
    if not errors.is_terminal:
        yield lambda epoch: errors.print(f"epoch {epoch.number}: {_figures(epoch)}", highlight=False)
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn  # noqa: PLC0415

    columns = (
        TextColumn("epoch"),
        MofNCompleteColumn(),
        BarColumn(),
        TextColumn("{task.description}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=errors, transient=True) as progress:
        task = progress.add_task("", total=epochs)
        yield lambda epoch: progress.update(task, completed=epoch.number, description=_figures(epoch))


def _figures(epoch: Epoch) -> str:
    validation = "" if epoch.validation is None else f", validation accuracy {epoch.validation.accuracy:.2%}"
    return f"{_fold(epoch)}loss {epoch.loss:.3f}{validation}"


def _fold(epoch: Epoch) -> str:
    """Return which texts the network of a cross-validation is trained on; empty without cross-validation."""
    if not epoch.folds:
        return ""
    return f"fold {epoch.fold} of {epoch.folds}, " if epoch.fold <= epoch.folds else "all texts, "


def _print_summary(summary: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(summary)
        return
    for note in summary.pop("notes"):
        errors.print(f"note: {note}", highlight=False, markup=False, soft_wrap=True)
    rows = [(name.replace("_", " "), _text(name, value)) for name, value in summary.items() if value is not None]
    print_table([Column("model"), Column("", right=True, whole=True)], rows)


def _text(name: str, value: object) -> str:
    is_share = isinstance(value, float) and name.startswith(("validation_", "test_"))
    return f"{value:.2%}" if is_share else str(value)
