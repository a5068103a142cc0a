"""``intentctl capacity``: predict the hit rate, and the number of predictors needed."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from intentctl.capacity.che import Cache, outlook
from intentctl.capacity.demand import Demand, zipf
from intentctl.capacity.errors import CapacityError
from intentctl.capacity.forecast import Fleet, Forecast, Row, Wanted, forecast
from intentctl.capacity.measured import measured_sizes, read_counts
from intentctl.capacity.plot import Curve, draw
from intentctl.capacity.replicas import MOST_REPLICAS, Affinity, Speed, with_affinity
from intentctl.output import EXIT_USAGE, AsJson, Column, fail, print_json, print_table
from serving.domain.errors import ServingError

_POINTS: Final = 50
_HEADINGS: Final = (
    Column("replicas", right=True),
    Column("hit rate with affinity", right=True, style="bold green"),
    Column("loads/s", right=True),
    Column("in memory", right=True),
    Column("busy", right=True),
    Column("hit rate without", right=True, style="bold"),
    Column("loads/s without", right=True),
    Column("in memory without", right=True),
    Column("busy without", right=True),
)


def _bytes(text: str) -> int:
    """Return the number of bytes of a size in the notation of the predictor's settings."""
    from pydantic import TypeAdapter, ValidationError  # noqa: PLC0415 - not needed for --help

    from serving.domain.byte_sizes import Bytes  # noqa: PLC0415 - as above

    try:
        size = int(TypeAdapter(Bytes).validate_python(text))
    except ValidationError as error:
        raise typer.BadParameter(f"{text!r} is not a size; write a size as 600MB or 2GiB") from error
    if size < 1:
        raise typer.BadParameter("the size must be at least 1 byte")
    return size


def capacity(
    *,
    tenants: Annotated[
        int | None,
        typer.Option(min=1, max=1_000_000, help="Number of requested models; if omitted, those in the model folder."),
    ] = None,
    exponent: Annotated[
        float,
        typer.Option(
            "--zipf",
            min=0.0,
            max=10.0,
            help="Popularity: requests for the model at rank r are proportional to 1/r^ZIPF; 0: all alike.",
        ),
    ] = 1.0,
    counts: Annotated[
        Path | None,
        typer.Option(
            exists=True, dir_okay=False, help="CSV with the columns model,requests, instead of --tenants and --zipf."
        ),
    ] = None,
    model_bytes: Annotated[
        int | None,
        typer.Option(
            parser=_bytes, metavar="SIZE", help="Memory of a model, such as 2MB; if omitted, as in the model folder."
        ),
    ] = None,
    model_dir: Annotated[
        Path, typer.Option(envvar="MODEL_DIR", file_okay=False, help="Folder with the models to measure.")
    ] = Path("models"),
    model_memory: Annotated[
        int | None,
        typer.Option(parser=_bytes, metavar="SIZE", help="Memory for models in each predictor, its --model-memory."),
    ] = None,
    memory_limit: Annotated[
        int | None,
        typer.Option(
            parser=_bytes,
            metavar="SIZE",
            help="Memory limit of a predictor's container, of which it takes its share for models. Without this"
            " option and --model-memory: the limit of this machine.",
        ),
    ] = None,
    max_models: Annotated[
        int, typer.Option(min=1, help="Maximum number of models in memory of each predictor, its --max-models.")
    ] = 100_000,
    replicas: Annotated[int, typer.Option(min=1, max=MOST_REPLICAS, help="Number of predictors.")] = 1,
    requests_per_second: Annotated[
        float, typer.Option(min=0.0, max=1e9, help="Requests per second, over all models and predictors.")
    ] = 1000.0,
    hit_rate: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Required share of requests that find their model in memory.")
    ] = 0.99,
    requests_per_replica: Annotated[
        float,
        typer.Option(
            min=0.001,
            max=1e9,
            help="Requests per second that a predictor answers from memory. The default was measured on one machine: "
            "docs/benchmarks.md.",
        ),
    ] = 3000.0,
    load_seconds: Annotated[
        float,
        typer.Option(
            min=0.0,
            max=1000.0,
            help="Time that a predictor takes to load a model, in seconds. The default was measured on one machine: "
            "docs/scaling.md.",
        ),
    ] = 0.004,
    partitions: Annotated[
        int,
        typer.Option(
            min=1, max=4096, help="Number of partitions with several predictors, the frontend's --partitions."
        ),
    ] = Affinity().partitions,
    plot: Annotated[
        Path | None,
        typer.Option(dir_okay=False, help="Write a PNG: hit rate over memory and over replicas; needs matplotlib."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Predict the hit rate and the number of predictors needed from popularity, model sizes and memory.

    The forecast uses Che's approximation of a cache that evicts the least recently used model; docs/scaling.md explains
    its assumptions.
    """
    if model_memory is not None and memory_limit is not None:
        fail("give --model-memory or --memory-limit, not both: the predictor takes its share of the limit", EXIT_USAGE)
    if counts is not None and tenants is not None:
        fail("give --counts or --tenants, not both: the file determines the number of models", EXIT_USAGE)
    budget = model_memory or _usual_budget(memory_limit)
    try:
        requests, sizes = _models(counts, tenants, exponent, model_bytes, model_dir)
    except (CapacityError, ServingError) as error:
        fail(str(error))
    answer = forecast(
        Demand.of(requests, sizes, budget=budget),
        Fleet(replicas, Cache(budget, max_models), Speed(requests_per_replica, load_seconds), Affinity(partitions)),
        Wanted(requests_per_second, hit_rate),
    )
    if plot is not None:
        _draw(answer, plot)
    if as_json:
        print_json(answer.as_dict())
    else:
        _print(answer)


def _usual_budget(limit: int | None) -> int:
    """Return the predictor's default memory for models under ``limit`` bytes; ``None`` means this machine's limit."""
    from predictor.cache.memory import default_budget, memory_limit  # noqa: PLC0415 - its log is slow to import

    return default_budget(memory_limit() if limit is None else limit)


def _models(
    counts: Path | None, tenants: int | None, exponent: float, model_bytes: int | None, model_dir: Path
) -> tuple[Sequence[float], Sequence[int]]:
    """Return the number of requests for each model, and its size in bytes."""
    if counts is not None:
        requests = read_counts(counts)
        if model_bytes is not None:
            return list(requests.values()), [model_bytes] * len(requests)
        sizes = _measured(model_dir)
        missing = [model for model in requests if model not in sizes]
        if missing:
            fail(
                f"{counts.name} names {len(missing)} models that {model_dir} does not have, as {missing[0]!r}; "
                "delete their rows, or give --model-bytes"
            )
        return list(requests.values()), [sizes[model] for model in requests]
    if model_bytes is not None:
        if tenants is None:
            fail("--model-bytes needs --tenants or --counts for the number of models", EXIT_USAGE)
        return zipf(tenants, exponent), [model_bytes] * tenants
    measured = list(_measured(model_dir).values())
    number = tenants or len(measured)
    # Assign the models of the folder to the tenants in turn.
    return zipf(number, exponent), list(itertools.islice(itertools.cycle(measured), number))


def _measured(model_dir: Path) -> dict[Any, int]:
    if not model_dir.is_dir():
        fail(f"--model-dir {model_dir} is not a folder; name one, or give --model-bytes", EXIT_USAGE)
    try:
        return dict(measured_sizes(model_dir))
    except ModuleNotFoundError as error:
        fail(f"measuring models requires the predictor's packages; {error.name} is not installed; give --model-bytes")


def _print(answer: Forecast) -> None:
    print_table([Column("quantity"), Column("value", right=True, style="bold", whole=True)], _quantities(answer))
    print_table(_HEADINGS, [_row(row) for row in answer.rows])


def _quantities(answer: Forecast) -> Iterator[tuple[str, str]]:
    demand, fleet, wanted = answer.demand, answer.fleet, answer.wanted
    yield "requested models", f"{demand.models}"
    yield "memory of all models", _size(demand.size)
    yield "memory for models per predictor", _size(fleet.cache.budget)
    if demand.refused:
        yield "models too large for that memory, refused", f"{demand.refused}"
    yield "requests for the most popular model", f"{demand.hottest:.2%}"
    yield "required hit rate", f"{wanted.hit_rate:.2%}"
    yield (
        "memory for that hit rate in one predictor",
        "no size suffices" if answer.budget_of_one is None else _size(answer.budget_of_one),
    )
    rate = f"{wanted.requests_per_second:g} requests/s"
    yield "replicas for that hit rate, with affinity", _number(answer.with_affinity.for_hit_rate)
    yield "replicas for that hit rate, without affinity", _number(answer.without_affinity.for_hit_rate)
    yield f"replicas for {rate}, with affinity", _number(answer.with_affinity.for_requests)
    yield f"replicas for {rate}, without affinity", _number(answer.without_affinity.for_requests)
    yield "replicas for both, with affinity", _number(answer.with_affinity.for_both)
    yield "replicas for both, without affinity", _number(answer.without_affinity.for_both)


def _row(row: Row) -> Sequence[str]:
    values = [
        (
            f"{side.hit_rate:.2%}",
            f"{side.cold_loads_per_second:.1f}",
            f"{side.models_in_memory:.0f}",
            f"{side.utilisation:.0%}",
        )
        for side in (row.with_affinity, row.without_affinity)
    ]
    return [f"{row.replicas}", *values[0], *values[1]]


def _number(replicas: int | None) -> str:
    return "no number suffices" if replicas is None else f"{replicas}"


def _size(size: float) -> str:
    return f"{size / 1e6:.1f} MB"


def _draw(answer: Forecast, path: Path) -> None:
    try:
        draw(_curves(answer), answer.wanted.hit_rate, path)
    except ModuleNotFoundError as error:
        fail(f"--plot needs matplotlib, and {error.name} is not installed")
    except OSError as error:
        fail(f"{path} cannot be written: {error.strerror}")


def _curves(answer: Forecast) -> Sequence[Curve]:
    demand, fleet = answer.demand, answer.fleet
    cache, affinity = fleet.cache, fleet.affinity
    most = max(2 * cache.budget, demand.size / fleet.replicas)
    budgets = [most * (point + 1) / _POINTS for point in range(_POINTS)]
    numbers = sorted(
        {1, *(round(answer.rows[-1].replicas * 1.5 * (point + 1) / _POINTS) for point in range(_POINTS))} - {0}
    )
    resized = [Cache(budget, cache.models) for budget in budgets]
    alone = outlook(demand, cache).hit_rate
    return (
        Curve(
            f"{fleet.replicas} replicas",
            "memory for models in each (MB)",
            [budget / 1e6 for budget in budgets],
            [with_affinity(demand, each, affinity, fleet.replicas).hit_rate for each in resized],
            [outlook(demand, each).hit_rate for each in resized],
            cache.budget / 1e6,
        ),
        Curve(
            f"{_size(cache.budget)} for models in each",
            "replicas",
            numbers,
            [with_affinity(demand, cache, affinity, number).hit_rate for number in numbers],
            [alone] * len(numbers),
            fleet.replicas,
        ),
    )
