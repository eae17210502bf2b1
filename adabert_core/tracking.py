"""MLflow tracking that can never stop a run: one parent run per pipeline run, one child per stage.

Comes in: figures and files as a stage makes them. Goes out: MLflow runs; a server that fails costs a warning.
"""

import logging
import math
import os
import re
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any, TypeVar

from adabert_core import __version__
from adabert_core.imports import collector_paused

log = logging.getLogger(__name__)
_FLUSH_EVERY_SECONDS = 5.0
_LONGEST_PAUSE_SECONDS = 15.0
_METRICS_A_REQUEST = 900  # the API takes 1000
_PARENT_TAG = "adabert.pipeline_run"
_BOUNDS = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}


Answer = TypeVar("Answer")


class Tracker:
    """Writes one stage's child run from a thread of its own; every method is a no-op when tracking is off (no uri).

    A server that does not answer is asked again until the stage ends, so that an outage loses nothing; one that refuses, or
    that has never answered by then, is given up with one warning. Training never waits.
    """

    def __init__(
        self, uri: str, experiment: str = "adabert", pipeline_run: str = "", run_name: str = "adabert", patience: float = 60.0
    ) -> None:
        self.uri, self.experiment, self.pipeline_run, self.run_name = uri, experiment, pipeline_run, run_name
        self.patience = patience  # seconds that the end of a stage waits for a server that was there before
        self._client: Any = None
        self._run_id = self._parent_id = ""
        self._buffer: list[tuple[str, float, int, int]] = []
        self._flushed = time.monotonic()
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="tracking")
        self._stop = threading.Event()
        self._monitor: Any = None  # MLflow's own, of processor, memory, disk, network and GPU; it writes every ten seconds
        self._answered = self._down = False
        for name, value in _BOUNDS.items():
            os.environ.setdefault(name, value)

    def start(self, stage: str, config: Mapping[str, Any], tags: Mapping[str, str] | None = None) -> None:
        """Opens the stage's run under the pipeline run's parent, with the config as parameters."""
        self._send(lambda: self._start(stage, config, tags or {}))

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        """Records finite figures at a step; they are sent in batches."""
        if not self.uri:
            return
        now = int(time.time() * 1000)
        self._buffer += [(name, float(value), now, step) for name, value in values.items() if math.isfinite(value)]
        if time.monotonic() - self._flushed > _FLUSH_EVERY_SECONDS:
            self._flushed = time.monotonic()
            self._send(self._flush)

    def headline(self, figures: Mapping[str, float], tags: Mapping[str, str], description: str) -> None:
        """Puts on the parent what pipeline runs are compared by, found by, and described with (Markdown)."""
        self._send(lambda: self._headline(figures, {**tags, "mlflow.note.content": description}))

    def artifact(self, path: Path, parent: bool = False) -> None:
        """Keeps a small file with the stage's run, and with its parent."""
        if self.uri:
            content = path.read_bytes()  # the file may have moved by the time it is sent
            self._send(lambda: self._log_file(path.name, content, parent))

    def tag(self, name: str, value: str) -> None:
        """Sets a tag on the stage's run and on its parent."""
        self._send(lambda: self._tag(name, value))

    def finish(self, status: str) -> None:
        """Ends the stage's run as FINISHED or FAILED, and waits until all of it has arrived."""
        self._send(self._flush)
        self._send(lambda: self._monitor.finish())
        self._settle(self._send(lambda: self._client.set_terminated(self._run_id, status)))
        self._run_id = ""

    def finish_pipeline(self, status: str = "") -> None:
        """Ends the parent run of this pipeline run, if there is one; without a status by how each stage's last run ended."""
        self._settle(self._send(lambda: self._finish_parents(status)))

    def ask(self, action: Callable[[Any, str], Answer]) -> Answer | None:
        """Returns what an action with the MLflow client and this stage's run id gives; None where tracking is off or down."""
        found: list[Answer] = []
        self._settle(self._send(lambda: found.append(action(self._client, self._run_id))))
        return found[0] if found else None

    def _send(self, action: Callable[[], Any]) -> Future[None] | None:
        return self._worker.submit(self._keep_trying, action) if self.uri else None

    def _keep_trying(self, action: Callable[[], Any]) -> None:
        pause = 1.0
        while self.uri:
            try:
                action()
                self._answered, self._down = True, False
                return
            except Exception as error:  # noqa: BLE001 - tracking must never stop a run, whatever the client raises
                if _refused(error):
                    self._give_up(_line(error))
                    return
                if not self._down:
                    said = f"tracking at {self.uri} does not answer ({_line(error)}); the run goes on, figures are sent later"
                    log.warning("%s", without_password(said))
                self._down = True
            self._stop.wait(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)

    def _settle(self, sent: Future[None] | None) -> None:
        """Waits for an action and all before it; not at all for a server that has never answered."""
        if sent is None:
            return
        waited = time.monotonic()
        while not sent.done() and self.uri:
            if self._down and (not self._answered or time.monotonic() - waited > self.patience):
                self._give_up("it did not answer to the end of the stage")
            wait([sent], timeout=0.05)

    def _give_up(self, reason: str) -> None:
        if self.uri:
            log.warning("%s", without_password(f"tracking at {self.uri} failed ({reason}); the run goes on without it"))
        self.uri = self._run_id = ""
        self._buffer = []
        self._stop.set()

    def _client_or_new(self) -> Any:
        if self._client is None:
            with collector_paused():
                from mlflow.tracking import MlflowClient

            for noisy in ("alembic", "mlflow"):  # after the import, which sets their levels
                logging.getLogger(noisy).setLevel(logging.WARNING)
            logging.getLogger("mlflow.system_metrics").setLevel(logging.CRITICAL)  # of an outage this file speaks

            if self.uri.startswith("sqlite:///"):
                Path(self.uri.removeprefix("sqlite:///")).absolute().parent.mkdir(parents=True, exist_ok=True)
            self._client = MlflowClient(tracking_uri=self.uri, registry_uri=self.uri)
        return self._client

    def _start(self, stage: str, config: Mapping[str, Any], tags: Mapping[str, str]) -> None:
        with collector_paused():
            from mlflow.entities import Param
            from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

        client = self._client_or_new()
        if not self._run_id:  # else the server went away between the two requests of the first attempt
            parent = self._parent()
            tags = {**tags, "mlflow.parentRunId": parent, "mlflow.runName": stage, "adabert.stage": stage}
            run = client.create_run(client.get_run(parent).info.experiment_id, tags=tags, run_name=stage)
            self._run_id = run.info.run_id
        client.log_batch(self._run_id, params=[Param(name, str(value)[:500]) for name, value in config.items()])
        self._monitor = SystemMetricsMonitor(self._run_id, tracking_uri=self.uri)
        self._monitor.start()

    def _parent(self) -> str:
        if known := self._parent_id or os.environ.get("MLFLOW_RUN_ID"):
            return known
        client, experiment_id = self._client_or_new(), self._experiment_id(create=True)
        found = self._parents(experiment_id)
        if not found:
            tags = {_PARENT_TAG: self.pipeline_run, "adabert.version": __version__}
            own = client.create_run(experiment_id, tags=tags, run_name=self.run_name).info.run_id
            found = self._parents(experiment_id)
            if found[0].info.run_id != own:  # another task of the pipeline run came first
                client.delete_run(own)
        self._parent_id = found[0].info.run_id
        return self._parent_id

    def _parents(self, experiment_id: str) -> list[Any]:
        wanted = f"tags.`{_PARENT_TAG}` = '{self.pipeline_run}'"
        found = self._client.search_runs([experiment_id], filter_string=wanted, order_by=["attributes.start_time ASC"])
        return sorted(found, key=lambda run: (run.info.start_time, run.info.run_id))

    def _experiment_id(self, create: bool) -> str:
        """The id of the experiment; without `create` '' where there is none."""
        from mlflow.exceptions import MlflowException

        client = self._client_or_new()
        found = client.get_experiment_by_name(self.experiment)
        self._answered = True
        if found is None and create:
            try:
                return client.create_experiment(self.experiment, **_artifacts(self.uri))
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
            found = client.get_experiment_by_name(self.experiment)
        return found.experiment_id if found is not None else ""

    def _finish_parents(self, status: str) -> None:
        client, experiment_id = self._client_or_new(), self._experiment_id(create=False)
        for parent in [run.info.run_id for run in self._parents(experiment_id)] if experiment_id else []:
            client.set_terminated(parent, status or self._status_of_stages(experiment_id, parent))

    def _status_of_stages(self, experiment_id: str, parent: str) -> str:
        children = f"tags.`mlflow.parentRunId` = '{parent}'"
        found = self._client.search_runs([experiment_id], filter_string=children, order_by=["attributes.start_time ASC"])
        last = {run.data.tags.get("adabert.stage"): run.info.status for run in found}
        return "FINISHED" if set(last.values()) <= {"FINISHED"} else "FAILED"

    def _flush(self) -> None:
        from mlflow.entities import Metric

        while batch := self._buffer[:_METRICS_A_REQUEST]:
            self._client.log_batch(self._run_id, metrics=[Metric(*figure) for figure in batch])
            del self._buffer[: len(batch)]  # only now: what was not sent is sent with the next

    def _headline(self, figures: Mapping[str, float], tags: Mapping[str, str]) -> None:
        from mlflow.entities import Metric, RunTag

        now = int(time.time() * 1000)
        metrics = [Metric(name, float(value), now, 0) for name, value in figures.items() if math.isfinite(value)]
        self._client.log_batch(self._parent(), metrics=metrics, tags=[RunTag(name, value) for name, value in tags.items()])

    def _log_file(self, name: str, content: bytes, parent: bool) -> None:
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / name).write_bytes(content)
            for run in [self._run_id, self._parent()] if parent else [self._run_id]:
                self._client.log_artifact(run, str(Path(folder) / name))

    def _tag(self, name: str, value: str) -> None:
        self._client.set_tag(self._run_id, name, value)
        self._client.set_tag(self._parent(), name, value)


def _artifacts(uri: str) -> dict[str, str]:
    """Keeps artifacts beside a sqlite database; a server decides for itself."""
    if not uri.startswith("sqlite:///"):
        return {}
    return {"artifact_location": (Path(uri.removeprefix("sqlite:///")).absolute().parent / "mlartifacts").as_uri()}


def _refused(error: Exception) -> bool:
    """True for an answer that will be the same next time: a wrong password, a request the server does not take."""
    code = getattr(error, "get_http_status_code", lambda: 0)()
    return 400 <= code < 500 and code not in (408, 429)


def without_password(text: str) -> str:
    """Text without the user and password that an address in it may hold."""
    return re.sub(r"//[^/\s@]*@", "//", text)


def _line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
