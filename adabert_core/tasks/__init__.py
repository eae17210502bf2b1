"""What a task is: its losses, predictions, metrics and words, one file per kind. The stages ask here and nowhere else.

Comes in: what prepare_data wrote of a data set. Goes out: a `Task`. All kinds have the same methods; classification.py
documents them, the others say what differs.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from adabert_core.tasks.classification import Classification
from adabert_core.tasks.multilabel import MultiLabel
from adabert_core.tasks.regression import Regression

Task = Classification | Regression | MultiLabel
CLASSIFICATION = Classification()
_KINDS: dict[str, type[Task]] = {kind.name: kind for kind in (Classification, Regression, MultiLabel)}


def task_of(about: Mapping[str, Any]) -> Task:
    """Returns the task that dataset.json or targets.json describes; without a word about it, it is classification."""
    kind = _KINDS[about.get("task", Classification.name)]
    return kind(**{field.name: about[field.name] for field in dataclasses.fields(kind) if field.name in about})


def described(task: Task) -> dict[str, Any]:
    """Returns what `task_of` reads: labels and metric, and of other tasks than plain classification the rest."""
    fields = {name: value for name, value in dataclasses.asdict(task).items() if value is not None}
    return fields if isinstance(task, Classification) else {"task": task.name, **fields}
