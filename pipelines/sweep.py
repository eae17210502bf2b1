"""python -m pipelines.run sweep: cases from a preset and what is to vary, and the one pipeline that runs them all.

Comes in: a preset, overrides, `--vary KEY=A,B,...`. Goes out: an IR YAML for any Kubeflow Pipelines, or the comparison of a
run on this machine.
"""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from kfp import compiler

from adabert_core.config import RunConfig
from adabert_core.config_file import SECTIONS, load_run_config
from adabert_core.errors import UserError
from pipelines.adabert import build_sweep
from pipelines.compiled import (
    accelerator_option,
    config_option,
    default_image,
    for_cluster,
    gpus_option,
    image_option,
    pipeline_parameters,
    set_option,
)
from pipelines.local_run import absolute, run_file
from pipelines.resources import Placement


def cases_of(
    config_path: Path, overrides: tuple[str, ...], vary: tuple[str, ...], seen: Callable[[RunConfig], RunConfig] = for_cluster
) -> list[dict[str, Any]]:
    """Returns the cases of every combination: name, seed and all sections, with paths as `seen` from where tasks will run.

    Raises:
        UserError: something that is not KEY=A,B, a key that is not known, an empty list, or what `seen` refuses.
    """
    choices = []
    for words in vary:
        key, separator, values = words.partition("=")
        if not separator or not all(values.split(",")):
            raise UserError(f"--vary {words}: write it as key=value,value, for example --vary seed=0,1,2.")
        choices.append([f"{key}={value}" for value in values.split(",")])
    cases = []
    for chosen in itertools.product(*choices):
        config = seen(load_run_config(config_path, (*overrides, *chosen)))
        parameters = pipeline_parameters(config, "")
        cases.append(
            {"name": " ".join(chosen) or config.name, "seed": config.seed, **{name: parameters[name] for name in SECTIONS}}
        )
    return cases


def compile_cases(cases: list[dict[str, Any]], output: Path, parallelism: int, image: str, gpus: int, accelerator: str) -> None:
    """Writes the pipeline that runs the cases on a cluster and compares them."""
    shared = RunConfig()
    parameters = {"cases": cases, "tracking_uri": shared.tracking_uri, "experiment": shared.experiment, "checkpoint_uri": ""}
    _write(parameters, output, Placement(image or default_image(), gpus, accelerator), parallelism)


def _write(parameters: dict[str, Any], output: Path, how: Placement, parallelism: int) -> None:
    output.parent.mkdir(parents=True, exist_ok=True)
    compiler.Compiler().compile(build_sweep(how, parallelism), str(output), pipeline_parameters=parameters)
    click.echo(f"wrote {output}: {len(parameters['cases'])} cases")


@click.command()
@config_option
@set_option
@click.option("--vary", multiple=True, required=True, metavar="KEY=A,B", help="Every combination is a case, e.g. seed=0,1,2.")
@click.option("--parallelism", default=4, show_default=True, help="Cases at a time on a cluster.")
@gpus_option
@accelerator_option
@image_option
@click.option("--checkpoint-uri", default="", help="Where checkpoints go; on this machine a folder of the run by default.")
@click.option("--output", type=click.Path(path_type=Path), default=Path("build/adabert_sweep.yaml"), show_default=True)
@click.option("--run", "folder", type=click.Path(path_type=Path), help="Run it here, in subprocesses, into this folder.")
def sweep(
    config_path: Path,
    overrides: tuple[str, ...],
    vary: tuple[str, ...],
    parallelism: int,
    gpus: int,
    accelerator: str,
    image: str,
    checkpoint_uri: str,
    output: Path,
    folder: Path | None,
) -> None:
    """Write a sweep over seeds, data sets or settings as one pipeline, or run it on this machine."""
    seen = absolute if folder else for_cluster
    config = seen(load_run_config(config_path, overrides))
    place = checkpoint_uri or (str(folder.absolute() / "checkpoints") if folder else "")
    shared = {"tracking_uri": config.tracking_uri, "experiment": config.experiment, "checkpoint_uri": place}
    parameters = {"cases": cases_of(config_path, overrides, vary, seen), **shared}
    how = Placement(image or default_image(), gpus, accelerator)
    if folder is not None:
        output, how = folder / "kfp" / "pipeline.yaml", Placement(image or default_image(), gpus=0, retries=0)
        parallelism = 1  # tasks of one machine would only take the cores from one another
    _write(parameters, output, how, parallelism)
    if folder is None:
        return
    run_file(output.absolute(), parameters, config.name)
    newest = max((output.parent / "tasks").rglob("comparison.html"), key=lambda path: path.stat().st_mtime)
    click.echo(f"comparison {newest}")
