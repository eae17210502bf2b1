"""From a preset to one IR YAML. Comes in: a checked config. Goes out: the file, its parameters, and their options."""

import dataclasses
from pathlib import Path
from typing import Any

import click
from kfp import compiler
from kfp.dsl.pipeline_context import Pipeline

from adabert_core import __version__
from adabert_core.artifacts import git_sha
from adabert_core.config import RunConfig
from adabert_core.config_file import SECTIONS
from adabert_core.errors import UserError
from pipelines.adabert import build
from pipelines.resources import Placement

PRESET = Path(__file__).parent / "configs" / "quickstart.yaml"
config_option = click.option(
    "--config", "config_path", type=click.Path(path_type=Path), default=PRESET, show_default=True, help="Preset."
)
set_option = click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a setting, e.g. data.label=stars."
)
gpus_option = click.option(
    "--gpus", default=1, show_default=True, help="GPUs of each training stage; 0 for a cluster without any."
)
accelerator_option = click.option(
    "--accelerator", default="nvidia.com/gpu", show_default=True, help="Kind of GPU, e.g. nvidia.com/mig-1g.18gb."
)
nodes_option = click.option(
    "--teacher-nodes", default=1, show_default=True, help="Fine-tune the teacher on so many nodes, by a TrainJob."
)
image_option = click.option("--image", default="", help="Image of all tasks; default: adabert-python:VERSION-COMMIT.")


def default_image() -> str:
    """The image of this code: package version and commit, never latest."""
    return f"adabert-python:{__version__}" + (f"-{git_sha()}" if git_sha() else "")


def pipeline_parameters(config: RunConfig, checkpoint_uri: str) -> dict[str, Any]:
    """The pipeline's parameters for a config; the keys are those of the DAG."""
    for name in SECTIONS:
        if getattr(getattr(config, name), "seed", config.seed) != config.seed:
            raise UserError(f"{name}.seed: the pipeline has one seed for all stages; set seed=... instead.")
    sections = {name: _plain(getattr(config, name)) for name in SECTIONS}
    shared = {"seed": config.seed, "tracking_uri": config.tracking_uri, "experiment": config.experiment}
    return {**sections, **shared, "checkpoint_uri": checkpoint_uri}


def for_cluster(config: RunConfig) -> RunConfig:
    """The config, unless it names what only this machine can see.

    Raises:
        UserError: rows or a teacher on this machine's disk.
    """
    paths = {"data.source": config.data.source, "data.unlabeled": config.data.unlabeled, "teacher.model": config.teacher.model}
    for key, value in paths.items():
        if value and (value.startswith("~") or Path(value).exists()):
            raise UserError(f"{key}: {value} is on this machine, where no task of a cluster can read it; give an s3:// URI.")
    return config


def compile_pipeline(config: RunConfig, output: Path, how: Placement, checkpoint_uri: str, *, cache: bool = True) -> None:
    """Writes the IR YAML with the config's values as the parameters' defaults.

    Without `cache` every task of the file runs again. It has to be said here: kfp.Client's enable_caching does nothing to a
    pipeline version, and of a file it changes the root's tasks only, which leaves out all that stand in the exit handler.
    """
    output.parent.mkdir(parents=True, exist_ok=True)
    parameters = pipeline_parameters(config, checkpoint_uri)
    before = Pipeline._execution_caching_default
    Pipeline._execution_caching_default = before and cache
    try:
        compiler.Compiler().compile(build(how), str(output), pipeline_parameters=parameters)
    finally:
        Pipeline._execution_caching_default = before


def _plain(section: Any) -> dict[str, Any]:
    values = {name: value for name, value in dataclasses.asdict(section).items() if value is not None}
    values.pop("seed", None)  # a parameter of its own
    return values
