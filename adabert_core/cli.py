"""The command `adabert`: words to calls. Prints here, in plan_commands and nowhere else; the user's mistakes exit with 2.

Comes in: arguments. Goes out: stage directories, tables, predictions. Heavy imports wait until a command needs them.
"""

import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import click

from adabert_core import __version__
from adabert_core.config import RunConfig
from adabert_core.config_file import load_run_config
from adabert_core.entry import show_log
from adabert_core.errors import UserError, sentence_of
from adabert_core.examples import add_examples
from adabert_core.imports import needed
from adabert_core.plan_commands import config_option as _config
from adabert_core.plan_commands import plan, plan_option, say_plan, search_space
from adabert_core.plan_commands import set_option as _set
from adabert_core.predict_input import paired, texts_of
from adabert_core.stages import STAGES

_checkpoint = click.option("--checkpoint-uri", default="", help="Where checkpoints go; default: a folder beside the output.")
_model = click.option("--model", type=click.Path(path_type=Path), required=True, help="StudentDir, e.g. runs/x/retrain.")
_precision = click.option(
    "--precision",
    type=click.Choice(["auto", "fp32", "int8"]),
    default="auto",
    show_default=True,
    help="auto: int8 where it has passed its gate against fp32.",
)
_threads = click.option(
    "--threads", type=click.IntRange(min=0), default=1, show_default=True, help="Threads of the ONNX session; 0: all cores."
)
_EXTRA_OF = {"boto3": "s3", "botocore": "s3", "kfp": "kfp", "kfp_server_api": "kfp"}  # what else may be missing: train
_TRAINING = ("torch", "pandas", "transformers", "accelerate")  # they stand for the whole extra
_every = click.option("--checkpoint-seconds", default=60.0, show_default=True, help="Time between two checkpoints.")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def cli() -> None:
    """Compress a fine-tuned BERT into a tiny network for one task, by searching its architecture."""


cli.add_command(plan)
cli.add_command(search_space)


@cli.command()
@_config
@_set
@click.option("--output", type=click.Path(path_type=Path), required=True, help="Run folder; one folder per stage goes into it.")
@_checkpoint
@_every
@click.option(
    "--stage-cache",
    default="",
    envvar="ADABERT_STAGE_CACHE",
    metavar="FOLDER",
    help="Keep teachers, targets, searches and students here, and take those made from the same rows and settings before.",
)
@plan_option
def run(
    config_path: Path,
    overrides: tuple[str, ...],
    output: Path,
    checkpoint_uri: str,
    checkpoint_seconds: float,
    stage_cache: str,
    planned: bool,
) -> None:
    """Run all seven stages in this process; what is done already is kept."""
    config = _config_to_train(config_path, overrides)
    from adabert_core.runner import run_all

    run_all(
        config,
        output,
        checkpoint_uri=checkpoint_uri,
        checkpoint_seconds=checkpoint_seconds,
        stage_cache=stage_cache,
        on_rows=partial(say_plan, config) if planned and not stage_cache else None,
    )
    show_report(output, config.tracking_uri)


@cli.command()
@click.argument("run_folder", type=click.Path(path_type=Path))
def report(run_folder: Path) -> None:
    """Print the table and the verdict of a run, and where its page is."""
    show_report(run_folder)


@cli.command()
@click.argument("run_folder", type=click.Path(path_type=Path))
@click.option("--to", "target", type=click.Path(path_type=Path), required=True, help="Folder to make; it may not exist yet.")
def export(run_folder: Path, target: Path) -> None:
    """Write a run's student with a model card into a folder that can be uploaded to a model hub as it is."""
    from adabert_core.card import export_run

    export_run(run_folder, target)
    click.echo(f"{target}: the student, its ONNX files and README.md")


@cli.command()
@_model
@click.option(
    "--input", "source", type=click.Path(path_type=Path), help="JSONL with text (and text_b), or plain lines; - for stdin."
)
@_threads
@_precision
@click.argument("texts", nargs=-1)
def predict(model: Path, source: Path | None, threads: int, precision: str, texts: tuple[str, ...]) -> None:
    """Classify TEXTS or the rows of a file; one JSON line each. For a pair task give the two texts after one another."""
    from adabert_core.api import load

    predictor = load(model, threads, precision)
    if source and texts:
        raise UserError("texts are given as arguments and by --input: give one of both.")
    rows = list(texts_of(source, predictor.pair)) if source else paired(list(texts), predictor.pair)
    if not rows:
        raise UserError("nothing to classify: give texts as arguments, or --input FILE.")
    for answer in predictor(rows):
        click.echo(json.dumps(answer, ensure_ascii=False))


@cli.command()
@click.argument("run_folder", type=click.Path(path_type=Path))
@click.option("--data", "source", required=True, help="Labelled rows: what data.source takes.")
@click.option("--text", multiple=True, help="Text column, given twice for pairs; default: the run's.")
@click.option("--label", default="", help="Label column; default: the run's.")
@_threads
@_precision
def evaluate(run_folder: Path, source: str, text: tuple[str, ...], label: str, threads: int, precision: str) -> None:
    """Score a run's student on labelled rows that the run did not have."""
    from adabert_core.new_rows import score_rows, summary

    found = score_rows(run_folder, source, text, label, threads, precision)
    click.echo(f"{summary(found)}\n{json.dumps(found, ensure_ascii=False)}")


@cli.command()
@_model
@click.option(
    "--seconds", type=click.FloatRange(min=0, min_open=True), default=4.0, show_default=True, help="Time to spend on measuring."
)
@click.argument("texts", nargs=-1)
def profile(model: Path, seconds: float, texts: tuple[str, ...]) -> None:
    """Time each part of classifying one text on one thread, in fp32 and int8, beside what the machine could do at best.

    TEXTS: one text of your own, or the two of a pair; default: a sentence of about 25 tokens.
    """
    import os

    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # before the library reads it: one thread is meant
    from adabert_core.api import load, student_folder

    pair = load(model, 1, "int8").pair
    from adabert_core.profiling import TEXT, profile, table_text

    rows = paired(list(texts or (TEXT, TEXT)), pair) if texts or pair else [TEXT]
    found = profile(student_folder(model), rows[0], seconds)
    click.echo(f"{table_text(found)}\n{json.dumps(found)}")


@cli.command()
@click.option(
    "--tracking-uri", envvar="MLFLOW_TRACKING_URI", default="sqlite:///mlflow.db", show_default=True, help="MLflow to look for."
)
@click.option("--checkpoint-uri", default="runs/checkpoints", show_default=True, help="Place for checkpoints to try.")
@click.option("--s3", "s3_uri", default="", help="s3://bucket/prefix to try step by step.")
def doctor(tracking_uri: str, checkpoint_uri: str, s3_uri: str) -> None:
    """Check what this machine offers, one line each; exit 2 if a run cannot work here."""
    from adabert_core.doctor import examine

    findings = examine(tracking_uri, checkpoint_uri, s3_uri)
    for finding in findings:
        click.echo(f"{'ok  ' if finding.ok else 'FAIL' if finding.needed else 'note'}  {finding.name}: {finding.said}")
    if any(finding.needed and not finding.ok for finding in findings):
        sys.exit(2)


@cli.command()
@click.argument("run_folder", type=click.Path(path_type=Path))
@click.option("--cells", type=click.IntRange(min=1), default=3, show_default=True, help="How many random cells to retrain.")
@click.option("--seed", type=click.IntRange(min=0), help="Seed of the draws; default: the run's.")
def control(run_folder: Path, cells: int, seed: int | None) -> None:
    """Retrain random cells of equal or greater cost with the searched cell's budget, and print the comparison."""
    from adabert_core.control import compare_with_random

    result = compare_with_random(run_folder, cells, seed)
    for row in result["rows"]:
        click.echo(
            f"{row['name']:<12} cost {row['cost']:6.3f}  {row['products']:3d} products  validation {row['validation']:.4f}  "
            f"test {row['test']:.4f}  {row['test_loss']:.4f}"
        )
    click.echo(result["sentence"])


@cli.command()
@click.option("--model-name", required=True, help="Registered model, as register.model_name has it.")
@click.option("--to", default="", help="Version to go back to; default: the champion before this one.")
@click.option("--tracking-uri", envvar="MLFLOW_TRACKING_URI", default="sqlite:///mlflow.db", show_default=True)
def rollback(model_name: str, to: str, tracking_uri: str) -> None:
    """Give the alias champion back to an earlier version."""
    from mlflow import MlflowClient

    from adabert_core.registry import roll_back

    try:
        client = MlflowClient(tracking_uri, tracking_uri)
    except Exception as error:
        raise UserError(f"--tracking-uri {tracking_uri} is none that MLflow takes: {str(error).splitlines()[0]}") from error
    old, new = roll_back(client, model_name, to)
    click.echo(f"{model_name}: version {new} is champion again, version {old} is not any more")


def _config_to_train(path: Path, overrides: tuple[str, ...]) -> RunConfig:
    """The checked config of what trains here; a package that it lacks is told before anything has begun."""
    config = load_run_config(path, overrides)
    needed(*_TRAINING, *(["mlflow"] if config.tracking_uri else []))
    from adabert_core.runner import tracked_here

    return tracked_here(config)


def _stage_command(name: str) -> click.Command:
    stage = STAGES[name]

    def command(
        config_path: Path,
        overrides: tuple[str, ...],
        output: str,
        checkpoint_uri: str,
        checkpoint_seconds: float,
        **inputs: str,
    ) -> None:
        config = _config_to_train(config_path, overrides)
        from adabert_core.artifact_store import stage_places
        from adabert_core.artifacts import digest_of
        from adabert_core.stages import run_stage
        from adabert_core.storage import Checkpoints, open_store
        from adabert_core.tracking import Tracker

        place = output.rstrip("/") if output.startswith("s3://") else str(Path(output).absolute())
        store = open_store(checkpoint_uri or f"{place.rpartition('/')[0]}/checkpoints", digest_of(place)[:16])
        tracker = Tracker(config.tracking_uri, config.experiment, place, config.name)
        checkpoints = Checkpoints(store, checkpoint_seconds)
        with stage_places(inputs, output) as (paths, target):
            run_stage(name, getattr(config, stage.section), paths, target, tracker=tracker, checkpoints=checkpoints)
        tracker.finish_pipeline("FINISHED")

    decorated: Callable[..., Any] = command
    for key in reversed(stage.inputs):
        option = click.option(f"--{key}", required=True, help=f"Directory that {stage.inputs[key]} wrote, or its s3:// URI.")
        decorated = option(decorated)
    output = click.option("--output", required=True, help="Directory to write, or an s3:// URI.")
    decorated = _config(_set(output(_checkpoint(_every(decorated)))))
    return click.command(name, help=f"Run the stage {name} alone.")(decorated)


for _name in STAGES:
    cli.add_command(_stage_command(_name))
add_examples(cli)


def show_report(run_folder: Path, tracking_uri: str = "") -> None:
    """Prints the table, the verdict, the page's path and how to open the dashboard."""
    from adabert_core.report import load_report, table_text

    found, page = load_report(run_folder)
    click.echo(f"\n{table_text(found)}\n\n{found['verdict']}\n")
    for sentence in found.get("warnings", []):
        click.echo(f"warning    {sentence}")
    click.echo(f"report     {page}")
    if tracking_uri:
        from adabert_core.tracking import without_password

        click.echo(f"dashboard  make dashboard   (MLflow on {without_password(tracking_uri)})")


def main() -> None:
    """Runs the command line."""
    show_log(sys.stderr)
    run_command(cli)


def run_command(command: click.Command) -> None:
    """Runs a command line: one sentence and exit code 2 for a user's mistake, a traceback only for ours."""
    try:
        command()
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing in ("", "adabert_core", "components", "pipelines"):
            raise
        extra = _EXTRA_OF.get(missing, "train")
        click.echo(f"adabert: this needs {missing}, which is not installed: pip install 'adabert-pipeline[{extra}]'", err=True)
        sys.exit(2)
    except Exception as error:
        if not (said := sentence_of(error)):
            raise
        click.echo(f"adabert: {said}", err=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
