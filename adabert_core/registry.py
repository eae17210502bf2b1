"""Versions of the registered student: who is champion, what it answers on other rows, who takes over, and the way back.

Comes in: an MLflow client and names. Goes out: versions and answers. Called through `Tracker.ask` or a command of the user,
so an outage is theirs to handle.
"""

import contextlib
import json
import logging
import os
import warnings
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

from adabert_core.errors import UserError
from adabert_core.serving import COLUMNS

log = logging.getLogger(__name__)
_CHAMPION = "champion"
_BEFORE = "adabert.champion_before"
_REQUEST_TIMEOUT = "MLFLOW_HTTP_REQUEST_TIMEOUT"
_MODEL_SECONDS = 120  # a server passes a model of some 20 MB on to its store before it answers
_SERVING_PACKAGES = ("mlflow", "onnxruntime", "tokenizers", "numpy", "pandas")
_EXAMPLE = ("a text to classify", "the second text of a pair")


class ModelVersion(NamedTuple):
    """A version of a registered model and its tags."""

    name: str
    version: str
    tags: dict[str, str]


def champion(client: Any, name: str) -> ModelVersion | None:
    """Returns the champion of a registered model, None where there is no such model or no champion yet."""
    from mlflow.exceptions import MlflowException

    try:
        found = client.get_model_version_by_alias(name, _CHAMPION)
    except MlflowException as error:  # an outage must not read as "no champion"
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise
    return ModelVersion(name, str(found.version), dict(found.tags))


def fetch(uri: str, model: ModelVersion, folder: Path) -> Path | Exception:
    """Returns the local copy of a version, or what says that there is none any more.

    Whatever else goes wrong is raised: of a store that is down for a minute, or that does not let us in, nothing is known of the
    champion, and it must not lose its alias for that.
    """
    import mlflow
    from mlflow.exceptions import MlflowException

    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)
    try:
        with _patient_requests():
            return Path(mlflow.artifacts.download_artifacts(f"models:/{model.name}/{model.version}", dst_path=str(folder)))
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return error


def answers(model: Path, text_a: list[str], text_b: list[str] | None) -> dict[str, list[Any]]:
    """Returns the columns with which a fetched version answers the texts; whatever it raises when it is broken is raised here."""
    import mlflow
    import pandas as pd

    frame = pd.DataFrame({"text": text_a} | ({"text_b": text_b} if text_b is not None else {}))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it compares our packages with those the version was made with
        return mlflow.pyfunc.load_model(str(model)).predict(frame).to_dict("list")


def add_version(uri: str, client: Any, run_id: str, name: str, folder: Path, tags: Mapping[str, str], description: str) -> str:
    """Logs a served model folder with a run and registers it; returns the new version, which has no alias yet.

    A version with the same tags is taken as it is: a stage that is tried again registers nothing twice.
    """
    import mlflow
    from mlflow.exceptions import MlflowException

    for known in client.search_model_versions(f"name = '{name}'"):
        if tags.items() <= dict(known.tags).items():
            return str(known.version)
    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)
    with mlflow.start_run(run_id=run_id), warnings.catch_warnings(), _patient_requests():
        warnings.simplefilter("ignore")  # about type hints of the model's code, which MLflow must not read as its schema
        logged = mlflow.pyfunc.log_model(name="student", **_flavour(folder))
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    source = f"models:/{logged.model_id}"
    made = client.create_model_version(name, source, run_id, dict(tags), description=description, model_id=logged.model_id)
    return str(made.version)


def save_model(folder: Path, target: Path) -> None:
    """Writes the served model as an MLflow model folder, for `mlflow models serve`, KServe and the like."""
    import mlflow

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mlflow.pyfunc.save_model(target, **_flavour(folder))


def promote(client: Any, name: str, version: str, before: str) -> bool:
    """Makes a version the champion in the place of `before` ('' for none), which it remembers; the alias moves last.

    False, and nothing is changed, where another than `before` has become champion in the meantime.
    """
    now = champion(client, name)
    if now is not None and now.version not in (before, version):
        return False
    if now is not None and now.version != version:
        client.set_model_version_tag(name, version, _BEFORE, now.version)
    client.set_registered_model_alias(name, _CHAMPION, version)
    return True


def roll_back(client: Any, name: str, to: str = "") -> tuple[str, str]:
    """Gives the alias champion back to the version that had it before, or to `to`; returns both versions, old and new.

    Raises:
        UserError: there is no champion, nothing before it, or no version `to`.
    """
    from mlflow.exceptions import MlflowException

    now = champion(client, name)
    if now is None:
        raise UserError(f"{name} has no champion to roll back; is the name right, and the tracking URI?")
    wanted = to or now.tags.get(_BEFORE, "")
    if not wanted:
        raise UserError(f"version {now.version} of {name} was the first champion: name the version to go back to with --to.")
    try:
        client.get_model_version(name, wanted)
    except MlflowException as error:
        raise UserError(f"{name} has no version {wanted}.") from error
    client.set_registered_model_alias(name, _CHAMPION, wanted)
    return now.version, wanted


@contextlib.contextmanager
def _patient_requests() -> Iterator[None]:
    """Gives MLflow's requests the time that a whole model takes; figures, which nothing must wait for, have a few seconds."""
    before = os.environ.get(_REQUEST_TIMEOUT)
    os.environ[_REQUEST_TIMEOUT] = str(max(_MODEL_SECONDS, int(before or 0)))
    try:
        yield
    finally:
        del os.environ[_REQUEST_TIMEOUT]
        os.environ.update({_REQUEST_TIMEOUT: before} if before is not None else {})


def _flavour(folder: Path) -> dict[str, Any]:
    """What MLflow needs to pack the folder that `register.pack_model` wrote."""
    import pandas as pd
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema, TensorSpec

    known = json.loads((folder / "serving.json").read_text(encoding="utf-8"))
    columns = ("text", "text_b") if known["pair"] else ("text",)
    texts: list[ColSpec | TensorSpec] = [ColSpec("string", column) for column in columns]
    made = COLUMNS[known.get("problem_type")]
    found: list[ColSpec | TensorSpec] = [ColSpec(kind, column) for column, kind in made.items()]
    return {
        "python_model": str(Path(__file__).with_name("serving.py")),
        "artifacts": {"student": str(folder)},
        "signature": ModelSignature(Schema(texts), Schema(found)),
        "input_example": pd.DataFrame([_EXAMPLE[: len(columns)]], columns=list(columns)),
        "pip_requirements": [f"{package}=={metadata.version(package)}" for package in _SERVING_PACKAGES],
    }
