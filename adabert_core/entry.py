"""What every pipeline component calls: plain values in, one stage run, its report out. Knows nothing of the runner.

Where the tracking parent is, where an error sentence should be left and whether directories travel through S3 comes from the
environment; none of it changes a result.
"""

import contextlib
import logging
import math
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

from adabert_core.artifacts import read_json, write_json
from adabert_core.config_file import parse_section
from adabert_core.errors import sentence_of
from adabert_core.stages import STAGES, StageReport, outside_content, run_stage
from adabert_core.storage import Checkpoints, open_store
from adabert_core.tracking import Tracker


def run_component(
    stage: str,
    config: dict[str, Any],
    inputs: dict[str, str],
    output: str,
    *,
    seed: int = 0,
    data_version: str = "",
    tracking_uri: str = "",
    experiment: str = "adabert",
    checkpoint_uri: str = "",
) -> StageReport:
    """Runs a stage with the pipeline's seed; a user's mistake is one sentence on the log and exit code 2.

    `data_version` is part of the task's cache key on a cluster and is only shown here.
    """
    with _one_sentence():
        settings = parse_section(STAGES[stage].section, _settings(config) | ({} if stage == "prepare_data" else {"seed": seed}))
        checkpoints = Checkpoints(open_store(checkpoint_uri, os.environ.get("KFP_RUN_ID", "local")) if checkpoint_uri else None)
        tracker = component_tracker(tracking_uri, experiment)
        tracked = bool(tracker.uri)
        with _carried({name: Path(path) for name, path in inputs.items()}, Path(output)) as paths:
            report = run_stage(stage, settings, paths, Path(output), tracker=tracker, checkpoints=checkpoints)
            if stage == "register" and tracked and on_cluster() and not read_json(Path(output) / "decision.json")["version"]:
                raise RuntimeError(f"MLflow did not take the student as a version of {settings.model_name}, see above.")
            return report
    raise AssertionError("unreachable: the block returns or the process has ended")


def fingerprint_component(data: dict[str, Any], teacher: dict[str, Any]) -> str:
    """Returns the data_version of the rows as they are now; a teacher's folder or s3:// prefix adds what is in it."""
    with _one_sentence():
        rows = outside_content("prepare_data", parse_section("data", _settings(data)))
        model = outside_content("finetune_teacher", parse_section("teacher", _settings(teacher)))
        return f"{rows}-{model}" if model else rows
    raise AssertionError("unreachable: the block returns or the process has ended")


def compare_component(names: list[str], reports: list[str], output: str, *, tracking_uri: str = "", experiment: str = "") -> None:
    """Writes the comparison of a sweep's cases, whose benchmark directories `reports` are, and tracks it."""
    from adabert_core.comparison import compare, track_cases

    with _one_sentence(), _carried({name: Path(path) for name, path in zip(names, reports, strict=True)}, None) as paths:
        found = compare(names, [paths[name] for name in names], Path(output))
        track_cases(component_tracker(tracking_uri, experiment), found["rows"], Path(output))


@contextlib.contextmanager
def _carried(inputs: dict[str, Path], output: Path | None) -> Iterator[dict[str, Path]]:
    """Yields the inputs as this process can read them, and sends the output on when the block has ended well."""
    place = os.environ.get("ADABERT_ARTIFACT_URI", "")
    if not place:
        yield inputs
        return
    from adabert_core.artifact_store import at_hand, put_away

    with tempfile.TemporaryDirectory(prefix="adabert-inputs-") as scratch:
        yield {name: at_hand(path, Path(scratch) / str(i)) for i, (name, path) in enumerate(inputs.items())}
    if output is not None:
        put_away(output, place)


@contextlib.contextmanager
def _one_sentence() -> Iterator[None]:
    """Turns a user's mistake inside the block, or what the system refuses, into one line of the log and exit code 2."""
    show_log(sys.stdout)
    try:
        yield
    except Exception as error:
        if not (said := sentence_of(error)):
            raise
        if target := os.environ.get("ADABERT_ERROR_FILE"):
            Path(target).write_text(said, encoding="utf-8")
        logging.getLogger(__name__).error("%s", said)
        sys.exit(2)


def _settings(config: dict[str, Any]) -> dict[str, Any]:
    """A section as it came through a pipeline parameter: without unset values, whole numbers whole again."""
    return {name: whole_numbers(value) for name, value in config.items() if value is not None}


def kept_figures(metrics: Mapping[str, float], path: str) -> dict[str, float]:
    """Returns the metrics that are numbers, as they are in a file from now on.

    A NaN would fail a task when its outputs are written; and KFP's local runner takes an artifact without a file for lost, and
    would run the task again.
    """
    figures = {name: float(value) for name, value in metrics.items() if math.isfinite(value)}
    write_json(Path(path), figures)
    return figures


def component_tracker(tracking_uri: str, experiment: str) -> Tracker:
    """Returns a tracker whose parent run is that of the pipeline run this process belongs to.

    The environment's MLflow server wins over a file, which in a pod would be lost with it; '' switches tracking off.
    """
    if tracking_uri.startswith("sqlite:"):
        tracking_uri = os.environ.get("MLFLOW_TRACKING_URI", tracking_uri)
    if tracking_uri.startswith("sqlite:") and on_cluster():
        logging.getLogger(__name__).warning(
            "nothing is tracked or registered: %s would end with this pod; give the namespace the ConfigMap adabert-run "
            "(manifests/base/run), or the pipeline a tracking_uri",
            tracking_uri,
        )
        tracking_uri = ""
    return Tracker(tracking_uri, experiment, os.environ.get("KFP_RUN_ID", ""), os.environ.get("ADABERT_RUN_NAME", "adabert"))


def on_cluster() -> bool:
    """True in a pod: what is not registered now is tried again by Kubeflow, and what is written here is lost."""
    return "KUBERNETES_SERVICE_HOST" in os.environ


def show_log(stream: TextIO) -> None:
    """Sends this package's log lines to a stream: standard output is where pipeline runners look for them."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=stream, force=True)
    for noisy in (
        "boto3",
        "botocore",
        "s3transfer",
        "httpx",
        "httpcore",
        "urllib3",
        "mlflow",
        "alembic",
        "datasets",
        "filelock",
        "fsspec",
        "matplotlib",
    ):
        logging.getLogger(noisy).setLevel(logging.WARNING)


def whole_numbers(value: Any) -> Any:
    """Turns 3.0 back into 3 everywhere: pipeline parameters travel as JSON numbers without a notion of integers."""
    if isinstance(value, dict):
        return {key: whole_numbers(item) for key, item in value.items()}
    if isinstance(value, list):
        return [whole_numbers(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value
