"""The matrix of an experiment: tasks x variants x seeds, each a run with a preset and its overrides.

Comes in: a YAML file as those in pipelines/experiments/, overrides. Goes out: runs in an order in which whatever several of
them share comes first, and the tasks that are left out because their rows are not here.
"""

import dataclasses
import difflib
import json
import os
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from adabert_core.config import Count, RunConfig
from adabert_core.config_file import checked, load_run_config, read_yaml
from adabert_core.errors import UserError

_STRICT = ConfigDict(extra="forbid")
_ELSEWHERE = ("builtin:", "hf:", "s3://")


@dataclass(frozen=True, config=_STRICT)
class Task:
    """A data set: what to set for it, a place that the command line gives being written {like this}."""

    set: dict[str, Any]


@dataclass(frozen=True, config=_STRICT)
class Variant:
    """What is tried: settings, and perhaps a structure that another variant's run with the same seed leads to.

    `cell_of` takes the structure which that variant found, on `task` or else on the same task. `dearer_than` draws `draws` random
    cells of its depth and of equal or greater cost.
    """

    set: dict[str, Any] = Field(default_factory=dict)
    cell_of: str = ""
    task: str = ""
    dearer_than: str = ""
    draws: Count = 1

    @property
    def model(self) -> str:
        """The variant whose structure this one needs, or nothing."""
        return self.cell_of or self.dearer_than


@dataclass(frozen=True, config=_STRICT)
class Experiment:
    """A whole file. `threads` is part of every result: OpenMP adds up sums in another order on another number of them."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9_-]+$")]
    preset: str
    about: str = ""
    threads: Count = 1
    seeds: list[int] = Field(default_factory=lambda: [0, 1, 2], min_length=1)
    places: dict[str, str | None] = Field(default_factory=dict)
    set: dict[str, Any] = Field(default_factory=dict)
    tasks: dict[str, Any] = Field(default_factory=dict)
    variants: dict[str, Any] = Field(default_factory=dict)

    def only(self, tasks: Sequence[str], variants: Sequence[str]) -> "Experiment":
        """The same with these tasks and variants alone, all where none is named."""
        for names, known, where in ((tasks, self.tasks, "--task"), (variants, self.variants, "--variant")):
            for name in names:
                _known(name, known, where)
        some_tasks = {name: task for name, task in self.tasks.items() if name in tasks or not tasks}
        some_variants = {name: variant for name, variant in self.variants.items() if name in variants or not variants}
        for name, variant in some_variants.items():
            if variant.model:
                _known(variant.model, some_variants, f"variants.{name}")
            if variant.task and variant.task not in some_tasks:
                raise UserError(f"variants.{name} needs the task {variant.task}: name it with --task, too.")
        return dataclasses.replace(self, tasks=some_tasks, variants=some_variants)


@dataclasses.dataclass(frozen=True)
class Run:
    """One cell of the matrix. `needs` is the key of the run whose structure it takes or has to beat in cost."""

    task: str
    variant: str
    seed: int
    draw: int
    preset: Path
    settings: tuple[str, ...]
    places: tuple[tuple[str, str], ...]
    needs: str = ""
    random: bool = False

    @property
    def key(self) -> str:
        """Its name, and its folder's."""
        draw = f" {self.draw + 1}" if self.random else ""
        parts = (self.task, f"{self.variant}{draw}", f"seed {self.seed}")
        return "/".join(re.sub(r"[^A-Za-z0-9_.+]+", "-", part).strip("-") for part in parts)

    def overrides(self, genotype: str = "") -> list[str]:
        """The run's `--set` words, with the structure that it was waiting for."""
        given = [f"search.genotype={genotype}"] if genotype else []
        return [_filled(word, dict(self.places)) for word in (*self.settings, *given)]

    def config(self, genotype: str = "") -> RunConfig:
        """The run's checked config."""
        return load_run_config(self.preset, self.overrides(genotype))

    def command(self, threads: int, genotype: str = "") -> str:
        """The command that makes this run by itself; a place is written as a shell variable of its name."""
        shown = {name: f"${name.upper()}" for name, _ in self.places}
        given = [f"search.genotype={genotype}"] if genotype else []
        words = [_quoted(_filled(word, shown)) for word in (*self.settings, *given)]
        preset = os.path.relpath(self.preset)
        return f"OMP_NUM_THREADS={threads} adabert run --config {preset} {' '.join(f'--set {w}' for w in words)} --output RUN"


def read_experiment(path: Path, overrides: Sequence[str] = ()) -> Experiment:
    """Returns the experiment of a file.

    Raises:
        UserError: the file is missing or not understood; an unknown key names the nearest.
    """
    raw = read_yaml(path, overrides)
    experiment: Experiment = checked(Experiment, raw, "")
    tasks = {name: checked(Task, _mapping(f"tasks.{name}", part), f"tasks.{name}.") for name, part in experiment.tasks.items()}
    variants = {
        name: checked(Variant, _mapping(f"variants.{name}", part), f"variants.{name}.")
        for name, part in experiment.variants.items()
    }
    if not tasks or not variants:
        raise UserError(f"{path}: an experiment needs tasks: and variants:.")
    for name, variant in variants.items():
        if variant.model:
            _known(variant.model, [v for v, other in variants.items() if not other.model], f"variants.{name}")
        if variant.task:
            _known(variant.task, tasks, f"variants.{name}.task")
    preset = str((path.parent / experiment.preset).resolve())
    return dataclasses.replace(experiment, preset=preset, tasks=tasks, variants=variants)


def expand(experiment: Experiment) -> tuple[list[Run], dict[str, str]]:
    """Returns the runs and, by task, why a task is left out.

    The first variant of all tasks and seeds comes first: its runs have little in common, and what the later ones share with
    them is there when they start. A variant that takes the structure of its own task would be `cell_of` again, and is not run.
    """
    reasons = {name: _absent(name, experiment) for name in experiment.tasks}
    skipped = {name: reason for name, reason in reasons.items() if reason}
    tasks = [name for name in experiment.tasks if name not in skipped]
    runs = [
        _run(experiment, task, name, seed, draw)
        for name, variant in experiment.variants.items()
        if variant.task not in skipped
        for seed in experiment.seeds
        for task in tasks
        if task != variant.task
        for draw in range(variant.draws)
    ]
    for run in runs:
        if run.seed == experiment.seeds[0] and run.draw == 0:
            run.config()  # so that a wrong key is told before anything is trained
    return runs, skipped


def _run(experiment: Experiment, task: str, name: str, seed: int, draw: int) -> Run:
    variant: Variant = experiment.variants[name]
    given = {**_flat(experiment.set), **_flat(experiment.tasks[task].set), **_flat(variant.set), "seed": seed, "tracking_uri": ""}
    places = tuple((place, value) for place, value in experiment.places.items() if value)
    made = Run(task, name, seed, draw, Path(experiment.preset), tuple(_word(k, v) for k, v in given.items()), places)
    if not variant.model:
        return made
    needed = dataclasses.replace(made, task=variant.task or task, variant=variant.model, draw=0)
    return dataclasses.replace(made, needs=needed.key, random=bool(variant.dearer_than))


def _absent(name: str, experiment: Experiment) -> str:
    """Why a task cannot be run here, or nothing."""
    places = experiment.places
    source = str({**_flat(experiment.set), **_flat(experiment.tasks[name].set)}.get("data.source", ""))
    for place, folder in places.items():
        if f"{{{place}}}" in source and not folder:
            return f"{name} is left out: its rows are not part of the project; give them with --set places.{place}=FOLDER."
    filled = _filled(source, {place: folder for place, folder in places.items() if folder})
    if filled and not filled.startswith(_ELSEWHERE) and not Path(filled).expanduser().exists():
        return f"{name} is left out: {filled} does not exist."
    return ""


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as dotted keys; what stands further down wins. The one setting that is a mapping itself stays whole."""
    found: dict[str, Any] = {}
    for key, value in settings.items():
        nested = isinstance(value, dict) and f"{prefix}{key}" != "targets.mix"
        found |= _flat(value, f"{prefix}{key}.") if nested else {f"{prefix}{key}": value}
    return found


def _word(key: str, value: Any) -> str:
    """`key=value` as `--set` reads it back to the same value."""
    plain = isinstance(value, str) and value != "" and (key.startswith("data.") or yaml.safe_load(value) == value)
    return f"{key}={value if plain else json.dumps(value)}"


def _filled(word: str, places: Mapping[str, str]) -> str:
    for place, folder in places.items():
        word = word.replace(f"{{{place}}}", folder)
    return word


def _quoted(word: str) -> str:
    return f'"{word}"' if "$" in word else shlex.quote(word)


def _mapping(where: str, value: Any) -> dict[str, Any]:
    if value is not None and not isinstance(value, dict):
        raise UserError(f"{where}: must be a mapping, for example {{set: {{search.beta: 0}}}}, got {value!r}.")
    return value or {}


def _known(name: str, names: Iterable[str], where: str) -> None:
    known = list(names)
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.0)
        raise UserError(f"{where}: {name!r} is not there" + (f"; did you mean {near[0]!r}?" if near else "."))
