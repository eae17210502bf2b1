"""The written results of an experiment, task by task: a call brings the tasks that it ran, the others stay as they were.

Comes in: records of runs, and how they came about. Goes out: NAME.json, NAME.svg and a part of a page between two marks.
"""

import dataclasses
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from adabert_core.artifacts import read_json, write_json
from adabert_core.errors import UserError
from adabert_core.experiments.table import SPREAD, markdown, spread, write_between_marks


@dataclasses.dataclass
class Results:
    """Records of runs, and for every task of theirs the `command` that made them, a `note`, and whose the times are (`timed`)."""

    name: str
    tasks: dict[str, dict[str, str]] = dataclasses.field(default_factory=dict)
    runs: list[dict[str, Any]] = dataclasses.field(default_factory=list)

    @classmethod
    def load(cls, folder: Path, name: str) -> "Results":
        """Reads NAME.json; none is no results.

        Raises:
            UserError: it is no such file, or one that an older version wrote.
        """
        file = folder / f"{name}.json"
        if not file.is_file():
            return cls(name)
        known = read_json(file)
        if not {"tasks", "runs"} <= known.keys():
            raise UserError(f"{file} is not of this version: move it away, or give another folder by --results.")
        return cls(name, known["tasks"], known["runs"])

    def replace(self, records: list[dict[str, Any]], told: dict[str, str]) -> None:
        """Takes the records in place of all that were known of their tasks."""
        new = {record["task"] for record in records}
        order = dict.fromkeys(record["task"] for record in [*self.runs, *records])
        self.runs = [record for task in order for record in (records if task in new else self.runs) if record["task"] == task]
        self.tasks |= {task: dict(told) for task in new}

    def publish(self, folder: Path, page: Path, about: str, variants: Iterable[str]) -> str:
        """Writes records, picture and table, and returns the table; variants are held against the first that was run."""
        from adabert_core.experiments.plot import draw  # here: matplotlib takes its time

        ran = {record["variant"] for record in self.runs}
        table = markdown(self.runs, next(variant for variant in variants if variant in ran))
        folder.mkdir(parents=True, exist_ok=True)
        data, picture = folder / f"{self.name}.json", folder / f"{self.name}.svg"
        write_json(data, {"experiment": self.name, "tasks": self.tasks, "runs": self.runs})
        draw(spread(self.runs), picture)
        there, shown = (os.path.relpath(path, page.parent) for path in (data, picture))
        parts = [f"## Experiment: {self.name}", f"{about.strip()} {SPREAD}".strip()]
        parts += self._origins()
        parts += [f"Every run's own command is in [{there}]({there}).", table, f"![test score against latency]({shown})"]
        write_between_marks(page, self.name, "\n\n".join(parts))
        return table

    def _origins(self) -> list[str]:
        """How the records came about, once for all tasks of a call."""
        tasks: dict[str, list[str]] = {}
        for task in dict.fromkeys(record["task"] for record in self.runs):
            told = self.tasks[task]
            words = [f"`{told['command']}`.", told["note"], told["timed"]]
            tasks.setdefault(" ".join(word for word in words if word), []).append(task)
        return [f"{', '.join(names)}: {words}" for words, names in tasks.items()]
