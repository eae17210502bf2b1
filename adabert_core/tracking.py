"""MLflow tracking that can never stop a run: one parent run per pipeline run, one child per stage.

Comes in: figures and files as a stage makes them. Goes out: MLflow runs; the first failure is one warning, then silence.
"""

import contextlib
import logging
import math
import os
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from adabert_core import __version__

log = logging.getLogger(__name__)
_FLUSH_EVERY_SECONDS = 5.0
_PARENT_TAG = "adabert.pipeline_run"
_SERVING_PACKAGES = ("mlflow", "onnxruntime", "tokenizers", "numpy", "pandas")
_BOUNDS = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}


class Tracker:
    """Writes one stage's child run; every method is a no-op when tracking is off (no uri) or has failed once."""

    def __init__(self, uri: str, experiment: str = "adabert", pipeline_run: str = "", run_name: str = "adabert") -> None:
        self.uri, self.experiment, self.pipeline_run, self.run_name = uri, experiment, pipeline_run, run_name
        self._client: Any = None
        self._run_id = ""
        self._buffer: list[tuple[str, float, int, int]] = []
        self._flushed = time.monotonic()

    def start(self, stage: str, config: Mapping[str, Any]) -> None:
        """Opens the stage's run under the pipeline run's parent, with the config as parameters."""
        if self.uri:
            self._attempt(lambda: self._start(stage, config))

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        """Records finite figures at a step; they are sent in batches."""
        if not self._run_id:
            return
        now = int(time.time() * 1000)
        self._buffer += [(name, float(value), now, step) for name, value in values.items() if math.isfinite(value)]
        if time.monotonic() - self._flushed > _FLUSH_EVERY_SECONDS:
            self._attempt(self._flush)

    def artifact(self, path: Path) -> None:
        """Keeps a small file with the stage's run."""
        if self._run_id:
            self._attempt(lambda: self._client.log_artifact(self._run_id, str(path)))

    def tag(self, name: str, value: str) -> None:
        """Sets a tag on the stage's run and on its parent."""
        if self._run_id:
            self._attempt(lambda: self._tag(name, value))

    def finish(self, status: str) -> None:
        """Ends the stage's run as FINISHED or FAILED."""
        if self._run_id:
            self._attempt(self._flush)
        if self._run_id:
            self._attempt(lambda: self._client.set_terminated(self._run_id, status))
        self._run_id = ""

    def finish_pipeline(self, status: str) -> None:
        """Ends the parent run of this pipeline run, if there is one."""
        if self.uri:
            self._attempt(lambda: self._client_or_new().set_terminated(self._parent(), status))

    def champion(self, name: str) -> dict[str, str] | None:
        """Returns the tags of the registered model's champion, None where there is none or tracking is off."""
        found: list[dict[str, str]] = []

        def look() -> None:
            from mlflow.exceptions import MlflowException

            try:
                found.append(dict(self._client.get_model_version_by_alias(name, "champion").tags))
            except MlflowException as error:  # no such model or alias; an outage must not read as "no champion"
                if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                    raise

        if self._run_id:
            self._attempt(look)
        return found[0] if found else None

    def register_model(self, name: str, model: Path, alias: str, tags: Mapping[str, str], description: str) -> str:
        """Logs a served model folder as a new version of `name` and points `alias` at it; returns the version, '' when off."""
        version: list[str] = []
        if self._run_id:
            self._attempt(lambda: version.append(self._register(name, model, alias, tags, description)))
        return version[0] if version else ""

    @property
    def active(self) -> bool:
        """True while a stage's run is open."""
        return bool(self._run_id)

    def _attempt(self, action: Callable[[], None]) -> None:
        try:
            with _bounded():
                action()
        except Exception as error:  # noqa: BLE001 - tracking must never stop a run, whatever the client raises
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            log.warning("tracking at %s failed (%s); the run goes on without it", self.uri, reason[:200])
            self.uri = self._run_id = ""
            self._buffer.clear()

    def _client_or_new(self) -> Any:
        if self._client is None:
            from mlflow.tracking import MlflowClient

            for noisy in ("alembic", "mlflow"):  # after the import, which sets their levels
                logging.getLogger(noisy).setLevel(logging.WARNING)

            if self.uri.startswith("sqlite:///"):
                Path(self.uri.removeprefix("sqlite:///")).absolute().parent.mkdir(parents=True, exist_ok=True)
            self._client = MlflowClient(tracking_uri=self.uri, registry_uri=self.uri)
        return self._client

    def _start(self, stage: str, config: Mapping[str, Any]) -> None:
        from mlflow.entities import Param

        client = self._client_or_new()
        parent = self._parent()
        tags = {"mlflow.parentRunId": parent, "mlflow.runName": stage, "adabert.stage": stage}
        run = client.create_run(client.get_run(parent).info.experiment_id, tags=tags, run_name=stage)
        params = [Param(name, str(value)[:500]) for name, value in config.items()]
        client.log_batch(run.info.run_id, params=params)
        self._run_id = run.info.run_id

    def _parent(self) -> str:
        client = self._client_or_new()
        experiment = client.get_experiment_by_name(self.experiment)
        experiment_id = (
            experiment.experiment_id if experiment else client.create_experiment(self.experiment, **_artifacts(self.uri))
        )
        if resumed := os.environ.get("MLFLOW_RUN_ID"):
            return resumed
        wanted = f"tags.`{_PARENT_TAG}` = '{self.pipeline_run}'"
        found = client.search_runs([experiment_id], filter_string=wanted, max_results=1)
        if found:
            return found[0].info.run_id
        tags = {_PARENT_TAG: self.pipeline_run, "adabert.version": __version__}
        return client.create_run(experiment_id, tags=tags, run_name=self.run_name).info.run_id

    def _flush(self) -> None:
        from mlflow.entities import Metric

        batch, self._buffer = self._buffer, []
        for first in range(0, len(batch), 900):  # the API takes 1000 a request
            metrics = [Metric(name, value, stamp, step) for name, value, stamp, step in batch[first : first + 900]]
            self._client.log_batch(self._run_id, metrics=metrics)
        self._flushed = time.monotonic()

    def _register(self, name: str, model: Path, alias: str, tags: Mapping[str, str], description: str) -> str:
        import mlflow
        from mlflow.models import ModelSignature
        from mlflow.types import ColSpec, Schema, TensorSpec

        texts: list[ColSpec | TensorSpec] = [ColSpec("string", "text"), ColSpec("string", "text_b", required=False)]
        answers: list[ColSpec | TensorSpec] = [
            ColSpec("string", "label"),
            ColSpec("double", "score"),
            ColSpec("string", "scores"),
        ]
        mlflow.set_tracking_uri(self.uri)
        mlflow.set_registry_uri(self.uri)
        with mlflow.start_run(run_id=self._run_id), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it asks for an example; the signature says the same
            logged = mlflow.pyfunc.log_model(
                name="student",
                python_model=str(Path(__file__).with_name("serving.py")),
                artifacts={"student": str(model)},
                signature=ModelSignature(Schema(texts), Schema(answers)),
                pip_requirements=[f"{package}=={metadata.version(package)}" for package in _SERVING_PACKAGES],
                registered_model_name=name,
            )
        version = str(logged.registered_model_version)
        for key, value in tags.items():
            self._client.set_model_version_tag(name, version, key, value)
        self._client.update_model_version(name, version, description)
        self._client.set_registered_model_alias(name, alias, version)
        return version

    def _tag(self, name: str, value: str) -> None:
        self._client.set_tag(self._run_id, name, value)
        self._client.set_tag(self._parent(), name, value)


def _artifacts(uri: str) -> dict[str, str]:
    """Keeps artifacts beside a sqlite database; a server decides for itself."""
    if not uri.startswith("sqlite:///"):
        return {}
    return {"artifact_location": (Path(uri.removeprefix("sqlite:///")).absolute().parent / "mlartifacts").as_uri()}


@contextlib.contextmanager
def _bounded() -> Iterator[None]:
    missing = {name: value for name, value in _BOUNDS.items() if name not in os.environ}
    os.environ.update(missing)
    try:
        yield
    finally:
        for name in missing:
            os.environ.pop(name, None)
