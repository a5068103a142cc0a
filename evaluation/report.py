"""HTML report of an evaluation: one file that needs no network and runs no script."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Final

from evaluation.evaluation import Evaluation

_MOST_ROWS: Final = 200


def html_report(
    evaluation: Evaluation, *, model: str, data: str, figures: Sequence[tuple[str, str]], plots: Mapping[str, bytes]
) -> bytes:
    """Return the report. Labels and texts may contain any character.

    Args:
        evaluation: the figures to report.
        model: name of the evaluated model, for the title.
        data: name of the data that the model was evaluated on.
        figures: names and values for the first table.
        plots: SVG images by name; empty if they cannot be drawn.

    Raises:
        ModuleNotFoundError: jinja2 is not installed.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined  # noqa: PLC0415 - only --report needs it

    environment = Environment(
        loader=PackageLoader("evaluation", ""), autoescape=True, undefined=StrictUndefined, trim_blocks=False
    )
    text = environment.get_template("report.html.jinja").render(
        evaluation=evaluation,
        model=model,
        data=data,
        figures=figures,
        plots={name: _address(image) for name, image in plots.items()},
        no_plots="No plots: matplotlib is not installed, or there are no rows to draw.",
        most=_MOST_ROWS,
    )
    return text.encode("utf-8", "replace")


def _address(image: bytes) -> str:
    """Return an image as a data URL: a browser runs no script in such an image."""
    return f"data:image/svg+xml;base64,{base64.b64encode(image).decode('ascii')}"
