"""python -m pipelines.run compile|local|submit|schedule: the DAG as a file, on this machine, on a cluster, every night.

Comes in: a preset and overrides. Goes out: one IR YAML; or a run folder with one directory per stage, as `adabert run` leaves it.
"""

import contextlib
import dataclasses
import io
import json
import logging
import os
import re
import shutil
import sys
import uuid
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import click
from kfp import components, local

from adabert_core.artifacts import MANIFEST, Manifest, read_manifest
from adabert_core.cli import run_command, show_report
from adabert_core.config import RunConfig, load_run_config
from adabert_core.data.prepare import fingerprint
from adabert_core.errors import UserError
from adabert_core.stages import STAGES
from pipelines.compiled import (
    compile_pipeline,
    config_option,
    default_image,
    gpus_option,
    image_option,
    pipeline_parameters,
    set_option,
)
from pipelines.remote_commands import schedule, submit

_OWN_LINE = re.compile(r"\s*\d\d:\d\d:\d\d ")


def run_local(config: RunConfig, output: Path, *, cache: bool) -> None:
    """Compiles the DAG and runs that file in subprocesses, one per task; `output` then holds one directory per stage.

    Raises:
        UserError: a task said so.
        RuntimeError: a task failed.
    """
    output = output.absolute()
    root = output / "kfp"
    file, sentence = root / "pipeline.yaml", root / "error.txt"
    # The image is part of the cache key. Here nobody wants to wait a minute to hear a second time what is wrong with the rows.
    compile_pipeline(config, file, default_image(), 0, str(output / "checkpoints"), retries=0)
    sentence.unlink(missing_ok=True)
    run_id = root / "run_id"
    if not run_id.is_file():
        run_id.write_text(uuid.uuid4().hex)
    os.environ.update(KFP_RUN_ID=run_id.read_text(), ADABERT_RUN_NAME=config.name, ADABERT_ERROR_FILE=str(sentence))
    runner = local.SubprocessRunner(use_venv=False)
    local.init(runner, pipeline_root=str(root / "tasks"), workspace_root=str(root / "workspace"), enable_caching=cache)
    try:
        with narrowed_output(root / "log.txt"):
            components.load_component_from_file(str(file))(**pipeline_parameters(config, str(output / "checkpoints")))
    except RuntimeError as error:
        if sentence.is_file():
            raise UserError(sentence.read_text()) from error
        raise RuntimeError(f"{error}; the whole log is {root / 'log.txt'}:\n{_tail(root / 'log.txt')}") from error
    finally:
        with contextlib.suppress(UserError):  # rows that cannot be read lead to no stage
            collect(root / "tasks", output, config)
    run_id.unlink()  # a finished run is over; the next one gets a parent of its own


@contextlib.contextmanager
def narrowed_output(log: Path) -> Iterator[None]:
    """Shows only the stages' own log lines on the terminal; everything that KFP prints besides goes to a file."""
    logging.disable(logging.INFO)
    try:
        with (
            log.open("w", encoding="utf-8") as file,
            warnings.catch_warnings(),
            contextlib.redirect_stdout(_Narrow(file, sys.stdout)),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)


class _Narrow(io.TextIOBase):
    """Copies all lines to a file and the stages' own to the terminal."""

    def __init__(self, file: TextIO, terminal: TextIO) -> None:
        self.file, self.terminal, self.line = file, terminal, ""

    def write(self, text: str) -> int:
        """Takes any piece of text; lines are passed on when they are complete."""
        self.file.write(text)
        *lines, self.line = (self.line + text).split("\n")
        for line in lines:
            if _OWN_LINE.match(line) and "executor output file" not in line:
                self.terminal.write(line.strip() + "\n")
                self.terminal.flush()
        return len(text)

    def flush(self) -> None:
        """Flushes both."""
        self.file.flush()
        self.terminal.flush()


def _tail(log: Path, lines: int = 40) -> str:
    return "\n".join(log.read_text(encoding="utf-8").splitlines()[-lines:])


def collect(tasks: Path, output: Path, config: RunConfig) -> None:
    """Hard-links from KFP's tree to `output/STAGE` the directory of every stage that this config and these rows lead to.

    Which one that is follows from the manifests, stage by stage: with caching, the newest need not be the right one.
    """
    found: dict[str, list[Path]] = {stage: [] for stage in STAGES}
    for path in sorted(tasks.rglob(MANIFEST), key=lambda path: -path.stat().st_mtime):
        found.setdefault(json.loads(path.read_text())["stage"], []).append(path.parent)
    chosen: dict[str, Manifest] = {}
    for stage, about in STAGES.items():
        shutil.rmtree(output / stage, ignore_errors=True)
        parents = {key: chosen[name].digest for key, name in about.inputs.items() if name in chosen}
        for folder in found[stage]:
            manifest = read_manifest(folder, stage)
            same_rows = stage != "prepare_data" or manifest.data_version == fingerprint(config.data)
            if (
                same_rows
                and manifest.config == dataclasses.asdict(getattr(config, about.section))
                and manifest.parents == parents
            ):
                chosen[stage] = manifest
                shutil.copytree(folder, output / stage, copy_function=_link)
                break


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system
        shutil.copy2(source, target)


@click.group()
def cli() -> None:
    """Compile the AdaBERT pipeline, run it on this machine, or have a cluster run it now or on a schedule."""


@cli.command("compile")
@config_option
@set_option
@gpus_option
@click.option("--output", type=click.Path(path_type=Path), default=Path("build/adabert_pipeline.yaml"), show_default=True)
@image_option
@click.option("--checkpoint-uri", default="", help="Default of the pipeline's checkpoint_uri.")
def compile_command(
    config_path: Path, overrides: tuple[str, ...], gpus: int, output: Path, image: str, checkpoint_uri: str
) -> None:
    """Write the DAG as one IR YAML that `kfp run create -f` takes as it is."""
    compile_pipeline(load_run_config(config_path, overrides), output, image or default_image(), gpus, checkpoint_uri)
    click.echo(f"wrote {output}")


@cli.command("local")
@config_option
@set_option
@click.option("--output", type=click.Path(path_type=Path), required=True, help="Run folder.")
@click.option("--no-cache", is_flag=True, help="Run every task again, even on unchanged data and settings.")
def local_command(config_path: Path, overrides: tuple[str, ...], output: Path, no_cache: bool) -> None:
    """Run the compiled DAG on this machine, one subprocess per task."""
    config = load_run_config(config_path, overrides)
    run_local(_absolute(config), output, cache=not no_cache)
    show_report(output, config.tracking_uri)


def _absolute(config: RunConfig) -> RunConfig:
    """Paths as seen from here, since a task may run elsewhere."""
    uri, source, model = config.tracking_uri, config.data.source, config.teacher.model
    if uri.startswith("sqlite:///"):
        uri = f"sqlite:///{Path(uri.removeprefix('sqlite:///')).absolute()}"
    data, teacher = config.data, config.teacher
    if Path(source).exists():
        data = dataclasses.replace(data, source=str(Path(source).absolute()))
    if Path(model).is_dir():
        teacher = dataclasses.replace(teacher, model=str(Path(model).absolute()))
    return dataclasses.replace(config, tracking_uri=uri, data=data, teacher=teacher)


cli.add_command(submit)
cli.add_command(schedule)


def main() -> None:
    """Runs the command line."""
    logging.getLogger("kfp").setLevel(logging.WARNING)
    run_command(cli)


if __name__ == "__main__":
    main()
