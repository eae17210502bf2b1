"""Which depth to take: short trainings from fresh weights, because the supernet cannot tell.

Its exits share one embedding that random operations keep from overfitting, so a single cell looks there as good as four;
trained alone it is not (docs/LOG.md). Comes in: a cell. Goes out: the cell at its best depth.
"""

import dataclasses
import logging

from scipy.special import softmax
from sklearn.metrics import log_loss

from adabert_core.config import RetrainConfig
from adabert_core.runtime import make_accelerator
from adabert_core.search_space import EDGES, Genotype, cell_cost
from adabert_core.storage import Checkpoints
from adabert_core.student_training import network_logits, train_student
from adabert_core.target_rows import Targets
from adabert_core.teacher import Teacher
from adabert_core.tokens import Collator
from adabert_core.tracking import Tracker

log = logging.getLogger(__name__)


def choose_depth(
    cell: Genotype,
    teacher: Teacher,
    targets: Targets,
    config: RetrainConfig,
    *,
    k_max: int,
    channels: int,
    costs: list[float],
    beta: float,
    checkpoints: Checkpoints,
    checkpoint_key: str,
) -> tuple[Genotype, list[dict[str, float]]]:
    """Returns the cell at the depth of 1..k_max with the least log loss on validation + beta * L_E, and all trials."""
    rows = Collator(targets.validation.rows, teacher.template)
    trials: list[dict[str, float]] = []
    for depth in range(1, k_max + 1):
        key = f"{checkpoint_key}/{depth}"
        saved = checkpoints.load(f"{key}/result")
        if saved is None:
            genotype = dataclasses.replace(cell, depth=depth)
            student, _ = train_student(
                genotype,
                teacher,
                targets,
                config,
                channels=channels,
                supernet=None,
                tracker=Tracker(""),
                checkpoints=checkpoints,
                checkpoint_key=key,
                label=f"trial K={depth}",
            )
            logits = network_logits(student.network, depth, rows, make_accelerator("cpu", "fp32"))
            labels = targets.validation.labels
            loss = float(log_loss(labels, softmax(logits.astype(float), axis=1), labels=range(logits.shape[1])))
            cost = cell_cost(genotype, costs) / (k_max * len(EDGES))
            saved = {"depth": float(depth), "log_loss": loss, "cost": cost, "objective": loss + beta * cost}
            checkpoints.save(f"{key}/result", saved)
        trials.append(saved)
        log.info("trial K=%d: log loss %.4f, objective %.4f", depth, saved["log_loss"], saved["objective"])
    best = min(trials, key=lambda trial: trial["objective"])
    return dataclasses.replace(cell, depth=int(best["depth"])), trials
