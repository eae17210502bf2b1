"""python -m pipelines.run submit|schedule: words to calls of remote.py and schedules.py.

Comes in: arguments. Goes out: lines on the terminal and an exit code: 0, 1 for a run that failed, 2 for a mistake or a refusal.
"""

import dataclasses
import sys
import tempfile
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from adabert_core.config import RunConfig
from adabert_core.config_file import load_run_config
from adabert_core.errors import UserError
from pipelines import remote, schedules
from pipelines.compiled import (
    accelerator_option,
    compile_pipeline,
    config_option,
    default_image,
    for_cluster,
    gpus_option,
    image_option,
    nodes_option,
    pipeline_parameters,
    set_option,
)
from pipelines.connection import Remote, connect
from pipelines.cron import parse_cron
from pipelines.resources import Placement


@dataclasses.dataclass(frozen=True)
class Wanted:
    """What of the command line says what is to be run."""

    config_path: Path
    overrides: tuple[str, ...]
    gpus: int
    accelerator: str
    teacher_nodes: int
    image: str
    experiment: str
    service_account: str
    pipeline_root: str
    checkpoint_uri: str
    no_cache: bool


def _with(*options: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Returns one decorator for several options, in the order of the help text."""

    def decorate(command: Any) -> Any:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


_server_options = _with(
    click.option("--endpoint", default="", envvar="KFP_ENDPOINT", help="URL of Kubeflow Pipelines; or env KFP_ENDPOINT."),
    click.option(
        "--port-forward", default="", metavar="SERVICE/NAMESPACE", help="Go through kubectl, e.g. ml-pipeline/kubeflow."
    ),
    click.option("--namespace", default="", envvar="KFP_NAMESPACE", help="Whose, on a server with several users."),
    click.option(
        "--token", "token_file", type=click.Path(path_type=Path), help="File with a bearer token; or env KFP_EXISTING_TOKEN."
    ),
)
_job_options = _with(
    config_option,
    set_option,
    gpus_option,
    accelerator_option,
    nodes_option,
    image_option,
    click.option("--experiment", default="", help="Made when missing; default: the preset's experiment."),
    click.option("--service-account", default="", help="Of the pods; default: the server's."),
    click.option("--pipeline-root", default="", help="Where artifacts go; default: the server's."),
    click.option("--checkpoint-uri", default="", help="Where a retry finds its checkpoint, s3://bucket/prefix."),
    click.option("--no-cache", is_flag=True, help="Run every task again, even on unchanged data and settings."),
)


@click.command()
@_server_options
@_job_options
@click.option("--run-name", default="", help="Default: the preset's name and the time.")
@click.option("--wait", is_flag=True, help="Follow the run; exit code 0 when it succeeded, 1 when not.")
@click.option("--poll-seconds", default=5.0, show_default=True, help="Time between two looks at the run.")
def submit(
    endpoint: str,
    port_forward: str,
    namespace: str,
    token_file: Path | None,
    run_name: str,
    wait: bool,
    poll_seconds: float,
    **job: Any,
) -> None:
    """Run the pipeline once on a Kubeflow Pipelines server."""
    wanted = Wanted(**job)
    config = _cluster_config(wanted)
    with connect(endpoint, port_forward, namespace, token_file) as server:
        prepared = _prepare(server, wanted, config)
        run_id = remote.start_run(server, prepared, run_name or f"{config.name} {datetime.now(UTC):%Y-%m-%d %H:%M:%S}")
        click.echo(f"run        {remote.run_page(server, run_id)}")
        if wait and not remote.wait(server, run_id, click.echo, poll_seconds):
            sys.exit(1)


@click.command()
@_server_options
@_job_options
@click.option("--name", default="adabert", show_default=True, help="Name of the schedule.")
@click.option("--cron", default="", help='When, six fields with seconds first: "0 0 3 * * *" is 03:00 every day.')
@click.option("--pause", "action", flag_value="pause", help="Fire no more until --resume.")
@click.option("--resume", "action", flag_value="resume", help="Fire again; what was missed is not made up for.")
@click.option("--delete", "action", flag_value="delete", help="Remove the schedule; its runs stay.")
@click.option("--list", "action", flag_value="list", help="Show what is scheduled.")
def schedule(
    endpoint: str,
    port_forward: str,
    namespace: str,
    token_file: Path | None,
    name: str,
    cron: str,
    action: str | None,
    **job: Any,
) -> None:
    """Run the pipeline whenever CRON fires; the same call again changes nothing, another cron or setting replaces it."""
    if bool(action) == bool(cron):
        raise UserError("schedule: give --cron to create or change it, or one of --pause, --resume, --delete and --list.")
    wanted = Wanted(**job)
    config = None
    if cron:
        parse_cron(cron)
        config = _cluster_config(wanted)
    with connect(endpoint, port_forward, namespace, token_file) as server:
        if config:
            done = schedules.reconcile(server, name, " ".join(cron.split()), _prepare(server, wanted, config))
        elif action == "list":
            _show(schedules.table(server, datetime.now(UTC)))
            return
        else:
            done = schedules.delete(server, name) if action == "delete" else schedules.switch(server, name, on=action == "resume")
    click.echo(f"schedule   {name}: {done}")


def _cluster_config(wanted: Wanted) -> RunConfig:
    """The checked config; what only this machine can see is refused before anything is sent."""
    config = for_cluster(load_run_config(wanted.config_path, wanted.overrides))
    if wanted.checkpoint_uri and not wanted.checkpoint_uri.startswith("s3://"):
        raise UserError(f"--checkpoint-uri {wanted.checkpoint_uri}: a folder ends with its pod; give s3://bucket/prefix.")
    return config


def _prepare(server: Remote, wanted: Wanted, config: RunConfig) -> remote.Job:
    """Uploads what is missing. The version is the code, the image and the preset; --set and the checkpoints are the run's."""
    with tempfile.TemporaryDirectory() as folder:
        package = Path(folder) / "adabert_pipeline.yaml"
        preset = load_run_config(wanted.config_path)
        how = Placement(wanted.image or default_image(), wanted.gpus, wanted.accelerator, teacher_nodes=wanted.teacher_nodes)
        compile_pipeline(preset, package, how, "", cache=not wanted.no_cache)
        version = remote.ensure_version(server, package)
    click.echo(f"pipeline   {remote.PIPELINE} {version.name}, {'uploaded' if version.new else 'there already'}")
    experiment = wanted.experiment or config.experiment
    click.echo(f"experiment {experiment}")
    return remote.Job(
        remote.ensure_experiment(server, experiment),
        version,
        pipeline_parameters(config, wanted.checkpoint_uri),
        wanted.service_account or None,
        wanted.pipeline_root or None,
    )


def _show(rows: Sequence[tuple[str, ...]]) -> None:
    lines = [("name", "cron", "state", "next (UTC)", "last run (UTC)"), *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    for line in lines:
        click.echo("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip())
