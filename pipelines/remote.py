"""What is said to a Kubeflow Pipelines API server about pipelines and runs; schedules.py adds the recurring ones.

Comes in: a connection, a compiled file, parameters. Goes out: a pipeline version, an experiment, a run and its end.
Finding comes before making everywhere, so that the same call twice makes one thing.
"""

import contextlib
import dataclasses
import hashlib
import io
import json
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import kfp_server_api
import urllib3.exceptions
import yaml
from kfp_server_api.exceptions import ApiException

from adabert_core import __version__
from pipelines.connection import Remote, named, pages
from pipelines.resources import RESOURCES

PIPELINE = "adabert"
PATIENCE_SECONDS = 600  # how long a server may be away before `wait` gives up
FINISHED = ("SUCCEEDED", "FAILED", "CANCELED", "SKIPPED")


@dataclasses.dataclass(frozen=True)
class Version:
    """A pipeline version on the server; `new` if this call uploaded it."""

    pipeline_id: str
    version_id: str
    name: str
    new: bool


@dataclasses.dataclass(frozen=True)
class Job:
    """What is to be run, once or on a schedule."""

    experiment_id: str
    version: Version
    parameters: dict[str, Any]
    service_account: str | None = None
    pipeline_root: str | None = None


def content_digest(package: Path) -> str:
    """Returns 12 hex digits for what a compiled file means; the order of keys and the comments count for nothing."""
    documents = list(yaml.safe_load_all(package.read_text(encoding="utf-8")))
    return hashlib.sha256(json.dumps(documents, sort_keys=True).encode()).hexdigest()[:12]


def ensure_version(remote: Remote, package: Path) -> Version:
    """Returns the pipeline version with this file's content, uploaded if the server has none of its name yet."""
    name = f"{__version__}-{content_digest(package)}"
    client = remote.client

    def find_pipeline() -> Any:
        return _first(pages(client.list_pipelines, "pipelines", namespace=remote.namespace, filter=named(PIPELINE)), PIPELINE)

    def make_pipeline() -> Any:
        wanted = kfp_server_api.V2beta1Pipeline(display_name=PIPELINE, namespace=remote.namespace)
        return client.pipelines.pipeline_service_create_pipeline(pipeline=wanted)

    pipeline_id = _find_or_make(find_pipeline, make_pipeline)[0].pipeline_id

    def find() -> Any:
        return _first(
            pages(client.list_pipeline_versions, "pipeline_versions", pipeline_id=pipeline_id, filter=named(name)), name
        )

    def make() -> Any:
        with _quiet():
            return client.upload_pipeline_version(str(package), name, pipeline_id=pipeline_id)

    version, new = _find_or_make(find, make)
    return Version(pipeline_id, version.pipeline_version_id, name, new)


def _first(found: Iterator[Any], name: str) -> Any:
    return next((item for item in found if item.display_name == name), None)


def _find_or_make(find: Callable[[], Any], make: Callable[[], Any]) -> tuple[Any, bool]:
    """Returns the thing and whether it is new; somebody else may have made it between the two calls."""
    found = find()
    if found is not None:
        return found, False
    try:
        return make(), True
    except ApiException as error:
        found = find() if error.status == 409 else None
        if found is None:
            raise
        return found, False


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps kfp's own lines off the terminal."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield


def ensure_experiment(remote: Remote, name: str) -> str:
    """Returns the id of the experiment, made if the server has none of this name."""
    with _quiet():
        return remote.client.create_experiment(name, namespace=remote.namespace).experiment_id


def start_run(remote: Remote, job: Job, name: str) -> str:
    """Starts one run and returns its id."""
    with _quiet():
        run = remote.client.run_pipeline(
            job.experiment_id,
            name,
            params=job.parameters,
            pipeline_id=job.version.pipeline_id,
            version_id=job.version.version_id,
            pipeline_root=job.pipeline_root,
            service_account=job.service_account,
        )
    return run.run_id


def run_page(remote: Remote, run_id: str) -> str:
    """Returns where a browser finds the run; through a port-forward, which ends with this process, how to get there."""
    path = f"/#/runs/details/{run_id}"
    through = "kubectl port-forward -n NAMESPACE service/ml-pipeline-ui 8080:80, then http://127.0.0.1:8080"
    return f"{remote.page or through}{path}"


def wait(remote: Remote, run_id: str, say: Callable[[str], None], poll_seconds: float) -> bool:
    """Says every change of a task's state until the run ends; returns whether it succeeded.

    A server that is away for less than PATIENCE_SECONDS changes nothing: the run goes on without it.
    """
    seen: dict[str, str] = {}
    answered = time.monotonic()
    while True:
        try:
            run = remote.client.get_run(run_id)
        except (urllib3.exceptions.HTTPError, ApiException) as error:
            away = time.monotonic() - answered
            if away > PATIENCE_SECONDS or (isinstance(error, ApiException) and error.status in (400, 401, 403, 404)):
                raise
            remote.revive()
        else:
            answered = time.monotonic()
            for task, state in _states(run):
                if seen.get(task) != state:
                    seen[task] = state
                    say(f"{datetime.now(UTC):%H:%M:%S} {task:<16} {state.lower()}")
            if run.state in FINISHED:
                because = f": {run.error.message}" if run.error and run.error.message else ""
                say(f"the run {run.state.lower()}{because}" if run.state != "CANCELED" else "the run was canceled")
                return run.state == "SUCCEEDED"
        time.sleep(poll_seconds)


def _states(run: Any) -> Iterator[tuple[str, str]]:
    """The DAG's own tasks; a server also lists their drivers and the groups they stand in."""
    own = {name.replace("_", "-") for name in RESOURCES}
    for task in (run.run_details and run.run_details.task_details) or []:
        if task.display_name in own and task.state:
            yield task.display_name, task.state
