"""python -m pipelines.run compile|local|submit|schedule|sweep|experiments: the DAG as a file, here, on a cluster, nightly, often.

Comes in: a preset and overrides. Goes out: one IR YAML; or a run folder with one directory per stage, as `adabert run` leaves it.
"""

import logging
import os
from pathlib import Path

import click

from adabert_core.cli import run_command, show_report
from adabert_core.config_file import load_run_config
from adabert_core.plan_commands import plan_option, say_plan
from pipelines.compiled import (
    accelerator_option,
    compile_pipeline,
    config_option,
    default_image,
    gpus_option,
    image_option,
    nodes_option,
    set_option,
)
from pipelines.experiment import experiments
from pipelines.local_run import Containers, check_interpreter, run_local
from pipelines.remote_commands import schedule, submit
from pipelines.resources import Placement
from pipelines.sweep import sweep


@click.group()
def cli() -> None:
    """Compile the AdaBERT pipeline, run it on this machine, or have a cluster run it now or on a schedule."""


@cli.command("compile")
@config_option
@set_option
@gpus_option
@accelerator_option
@nodes_option
@click.option("--output", type=click.Path(path_type=Path), default=Path("build/adabert_pipeline.yaml"), show_default=True)
@image_option
@click.option("--checkpoint-uri", default="", help="Default of the pipeline's checkpoint_uri.")
def compile_command(
    config_path: Path,
    overrides: tuple[str, ...],
    gpus: int,
    accelerator: str,
    teacher_nodes: int,
    output: Path,
    image: str,
    checkpoint_uri: str,
) -> None:
    """Write the DAG as one IR YAML that `kfp run create -f` takes as it is."""
    how = Placement(image or default_image(), gpus, accelerator, teacher_nodes=teacher_nodes)
    compile_pipeline(load_run_config(config_path, overrides), output, how, checkpoint_uri)
    click.echo(f"wrote {output}")


@cli.command("local")
@config_option
@set_option
@click.option("--output", type=click.Path(path_type=Path), required=True, help="Run folder.")
@click.option("--no-cache", is_flag=True, help="Run every task again, even on unchanged data and settings.")
@click.option("--runner", type=click.Choice(["subprocess", "docker"]), default="subprocess", show_default=True)
@image_option
@click.option("--artifact-uri", default="s3://adabert-pipelines/local", show_default=True, help="Docker: between tasks.")
@click.option("--checkpoint-uri", default="s3://adabert-checkpoints/local", show_default=True, help="Docker: checkpoints.")
@plan_option
def local_command(
    config_path: Path,
    overrides: tuple[str, ...],
    output: Path,
    no_cache: bool,
    runner: str,
    image: str,
    artifact_uri: str,
    checkpoint_uri: str,
    planned: bool,
) -> None:
    """Run the compiled DAG on this machine, one subprocess or one container per task."""
    config = load_run_config(config_path, overrides)
    containers = Containers(image or default_image(), artifact_uri, checkpoint_uri) if runner == "docker" else None
    if not containers:
        check_interpreter()
    if planned and not output.exists():
        say_plan(config)
    run_local(config, output, cache=not no_cache, containers=containers)
    show_report(output, os.environ.get("MLFLOW_TRACKING_URI", config.tracking_uri))


cli.add_command(submit)
cli.add_command(schedule)
cli.add_command(sweep)
cli.add_command(experiments)


def main() -> None:
    """Runs the command line."""
    logging.getLogger("kfp").setLevel(logging.WARNING)
    run_command(cli)


if __name__ == "__main__":
    main()
