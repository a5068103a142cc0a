"""The first prediction of services that have just started: one answer, and the call to try next."""

from __future__ import annotations

import contextlib
from typing import Final

from intent_serving_client.client import AsyncIntentClient
from intentctl.output import print_line
from intentctl.stack import ALGORITHM, StackOptions
from serving.domain.errors import ServingError
from serving.domain.model_id import ModelId
from serving.domain.prediction import Prediction
from serving.volume.model_store import ModelStore

_FIRST_CHOICE: Final = "clinc150"
_DOCUMENT: Final = "make a 10 minute timer"


async def make_first_prediction(options: StackOptions) -> None:
    """Ask the first model of the running services, and print its answer; without a model, print how to train one.

    Raises:
        ServingError: there is no answer; the error says why.
    """
    model_id = _model_to_ask(ModelStore(options.model_dir))
    if model_id is None:
        print_line("There is no model yet; `intentctl train --help` shows how to train one.")
        return
    async with AsyncIntentClient(options.frontend) as client:
        prediction = await client.predict(model_id, _DOCUMENT)
    _show(prediction, options)


def _model_to_ask(store: ModelStore) -> ModelId | None:
    """Return the first complete intent model; the largest sample model takes precedence."""
    for model_id in sorted(store.model_ids(), key=lambda model_id: model_id != _FIRST_CHOICE):
        with contextlib.suppress(ServingError):
            complete = not store.fingerprint(model_id).missing
            if complete and store.read_manifest(model_id).algorithm == ALGORITHM:
                return model_id
    return None


def _show(prediction: Prediction, options: StackOptions) -> None:
    print_line(f'{prediction.model_id}: "{_DOCUMENT}" -> {prediction.label} (score {prediction.score:.3f})')
    print_line("Try next:")
    question = f'{{"runId": "{prediction.model_id}", "document": "{_DOCUMENT}"}}'
    print_line(f"  grpcurl -plaintext -d '{question}' {options.frontend} prediction.PredictionService/Predict")
