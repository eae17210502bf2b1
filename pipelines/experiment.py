"""python -m pipelines.run experiments: a matrix of tasks, variants and seeds, run on this machine or written as one pipeline.

Comes in: an experiment's file, overrides. Goes out: docs/results/NAME.json and .svg and the table in docs/RESULTS.md; or an IR
YAML whose ParallelFor holds the same cases.
"""

import os
import shlex
import sys
from pathlib import Path
from typing import Any

import click

from adabert_core.config import RunConfig
from adabert_core.config_file import SECTIONS
from adabert_core.entry import show_log
from adabert_core.errors import UserError
from adabert_core.experiments.matrix import Experiment, Run, expand, read_experiment
from adabert_core.experiments.results import Results
from adabert_core.experiments.side_by_side import Workshop
from adabert_core.experiments.table import record_of
from pipelines.compiled import accelerator_option, for_cluster, gpus_option, image_option, pipeline_parameters, set_option
from pipelines.sweep import compile_cases


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@set_option
@click.option("--task", "tasks", multiple=True, help="Only this task, or these; written results of others stay.")
@click.option("--variant", "variants", multiple=True, help="Only this variant; likewise.")
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    default=Path("runs/experiments"),
    show_default=True,
    help="Folder of the runs; what experiments have in common is computed once in it.",
)
@click.option("--workers", type=click.IntRange(min=0), default=0, help="Runs at a time; default: the cores over `threads`.")
@click.option(
    "--benchmarks",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Benchmarks at a time; more than one takes latencies beside each other, on a machine with cores to spare.",
)
@click.option("--results", type=click.Path(path_type=Path), default=Path("docs/results"), show_default=True)
@click.option("--page", type=click.Path(path_type=Path), default=Path("docs/RESULTS.md"), show_default=True)
@click.option("--note", default="", help="A sentence for the table, e.g. 'Times were taken beside other work.'")
@click.option("--dry-run", is_flag=True, help="List the runs and stop.")
@click.option(
    "--time-again", is_flag=True, help="Train nothing: time all models of the written results here, in turns, and stop."
)
@click.option("--compile", "pipeline", type=click.Path(path_type=Path), help="Write the cases as one pipeline and stop.")
@click.option("--parallelism", default=4, show_default=True, help="Cases at a time on a cluster.")
@gpus_option
@accelerator_option
@image_option
def experiments(
    file: Path,
    overrides: tuple[str, ...],
    tasks: tuple[str, ...],
    variants: tuple[str, ...],
    output: Path,
    workers: int,
    benchmarks: int,
    results: Path,
    page: Path,
    note: str,
    dry_run: bool,
    time_again: bool,
    pipeline: Path | None,
    parallelism: int,
    gpus: int,
    accelerator: str,
    image: str,
) -> None:
    """Run the experiment in FILE; what is done already is kept, and what fails is named at the end."""
    whole = read_experiment(file, overrides)
    experiment = whole.only(tasks, variants)
    runs, skipped = expand(experiment)
    for reason in skipped.values():
        click.echo(reason)
    if not runs:
        raise UserError(f"{file}: no run is left.")
    if dry_run:
        click.echo("\n".join(run.key for run in runs))
        return
    if pipeline is not None:
        compile_cases(cases_of(runs), pipeline, parallelism, image, gpus, accelerator)
        return
    show_log(sys.stderr)
    command = _said(file, overrides, tasks, variants, experiment)
    known = Results.load(results, experiment.name)  # before hours of work
    if time_again:
        replace_times(known, runs, command, note)
        click.echo(known.publish(results, page, whole.about, whole.variants))
        return
    workshop = Workshop(output, experiment.name, experiment.threads)
    count = workers or max((os.cpu_count() or 1) // experiment.threads, 1)
    failed = workshop.work_off(runs, count, benchmarks)
    done = [run for run in runs if run.key not in failed]
    if done:
        known = Results.load(results, experiment.name)  # another call may have written its tasks since
        known.replace(records_of(experiment, workshop, done), {"command": command, "note": note, "timed": ""})
        click.echo(known.publish(results, page, whole.about, whole.variants))
    for key, reason in failed.items():
        click.echo(f"failed: {key}: {reason}", err=True)
    if failed:
        sys.exit(1)


def records_of(experiment: Experiment, workshop: Workshop, runs: list[Run]) -> list[dict[str, Any]]:
    """The records of finished runs."""
    return [record_of(run, workshop.run_folder(run), run.command(experiment.threads, workshop.genotype(run))) for run in runs]


def replace_times(known: Results, runs: list[Run], command: str, note: str) -> None:
    """Times the models of the runs' written results here, in place of the times that are known.

    Raises:
        UserError: there are no results of these runs yet, or a task's runs have no one teacher and width.
    """
    from adabert_core.experiments.timing import time_again

    wanted = {(run.task, run.variant) for run in runs}
    mine = [i for i, record in enumerate(known.runs) if (record["task"], record["variant"]) in wanted]
    configs = {run.task: run.config() for run in runs if run.task in {known.runs[i]["task"] for i in mine}}
    if not configs:
        tasks = ", ".join(sorted({run.task for run in runs}))
        raise UserError(f"--time-again: {known.name}.json has no results of {tasks} yet; run the experiment first.")
    for run in runs:
        if run.task in configs:
            _check_alike(run, configs[run.task])
    for i, record in zip(mine, time_again([known.runs[i] for i in mine], configs), strict=True):
        known.runs[i] = record
    for task in configs:
        told = known.tasks[task]
        told["timed"] = f"Times were taken once more, all models in turns: `{command} --time-again`."
        told["note"] = note or told["note"]


def _check_alike(run: Run, config: RunConfig) -> None:
    """Checks that a run has the teacher, texts and width of its task's others, which one of them stands for."""
    own = run.config()
    pairs = {
        "teacher.model": (own.teacher.model, config.teacher.model),
        "teacher.max_length": (own.teacher.max_length, config.teacher.max_length),
        "search.channels": (own.search.channels, config.search.channels),
        "data.text": (own.data.text, config.data.text),
    }
    for key, (mine, other) in pairs.items():
        if mine != other:
            raise UserError(f"--time-again: the variants of {run.task} differ in {key}; time them by themselves with --variant.")


def cases_of(runs: list[Run]) -> list[dict[str, object]]:
    """The runs as the cases of a sweep; those that need another's structure are named and left out."""
    cases = []
    for run in runs:
        if run.needs:
            click.echo(f"{run.key} is left out: a pipeline's cases cannot wait for {run.needs}; give search.genotype instead.")
            continue
        config = for_cluster(run.config())
        parameters = pipeline_parameters(config, "")
        name = f"{run.task} {run.variant} seed={run.seed}"
        cases.append({"name": name, "seed": config.seed, **{section: parameters[section] for section in SECTIONS}})
    return cases


def _said(
    file: Path, overrides: tuple[str, ...], tasks: tuple[str, ...], variants: tuple[str, ...], experiment: Experiment
) -> str:
    """The command as it was given, with places as shell variables."""
    words = [f"--task {shlex.quote(task)}" for task in tasks] + [f"--variant {shlex.quote(variant)}" for variant in variants]
    for word in overrides:
        place = word.partition("=")[0].removeprefix("places.")
        words.append(f"--set places.{place}=${place.upper()}" if place in experiment.places else f"--set {shlex.quote(word)}")
    return " ".join(["python -m pipelines.run experiments", str(file), *words])
