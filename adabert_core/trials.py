"""The last word of a search: short trainings from fresh weights of the structures that alpha favours.

Comes in: candidate cells. Goes out: the one that validates best for its cost. The supernet alone cannot tell, since its exits
share one embedding that random operations keep from overfitting: there a single cell of pools looks as good as four of
convolutions, and trained alone it is not (docs/LOG.md). DARTS picks the best of its searches in the same way. What learns
fast need not end best, so the last few are trained longer (successive halving, Jamieson & Talwalkar 2016). Cells are compared
at what they cost deployed; the depth is not, since short trials hide what depth is worth.
"""

import dataclasses
import logging
from collections.abc import Callable
from typing import Any, NamedTuple

from adabert_core.artifacts import digest_of
from adabert_core.config import RetrainConfig
from adabert_core.runtime import make_accelerator
from adabert_core.search_space import Genotype, deployed_products
from adabert_core.storage import Checkpoints
from adabert_core.student_training import network_logits, train_student
from adabert_core.target_rows import Targets
from adabert_core.teacher import Teacher
from adabert_core.tokens import Collator
from adabert_core.tracking import Tracker

log = logging.getLogger(__name__)


class Trial(NamedTuple):
    """What all trials of a search share."""

    teacher: Teacher
    targets: Targets
    config: RetrainConfig
    channels: int
    price: float  # log loss that a further product of one position must gain


def choose_by_trials(
    cells: list[Genotype],
    trial: Trial,
    *,
    k_max: int,
    finalists: int,
    final_steps: int,
    checkpoints: Checkpoints,
    checkpoint_key: str,
    fits: Callable[[Genotype], bool] = lambda genotype: True,
) -> tuple[Genotype, list[dict[str, Any]]]:
    """Returns the genotype with the least objective, and all trials.

    The first cell is tried at depth k_max, k_max - 1, ... as long as the log loss falls, the others at the depth that was best
    for it; the best `finalists` of that depth are tried once more with `final_steps`, and what they reach then decides. Only what
    `fits` is tried, others with fewer cells until they do; where nothing does, the first with one cell is taken.
    """
    trials: list[dict[str, Any]] = []

    def attempt(genotype: Genotype, trial: Trial) -> dict[str, Any]:
        name = digest_of([str(genotype), trial.config.max_steps, trial.price])[:16]  # a search that is resumed may try others
        trials.append(run_trial(genotype, trial, checkpoints, f"{checkpoint_key}/{name}"))
        return trials[-1]

    def objective(cell: Genotype) -> float:
        return tried[cell]["objective"]

    tried: dict[Genotype, dict[str, Any]] = {}
    for depth in [k for k in range(k_max, 0, -1) if k == 1 or fits(dataclasses.replace(cells[0], depth=k))]:
        favourite = dataclasses.replace(cells[0], depth=depth)
        tried[favourite] = attempt(favourite, trial)
        if tried[favourite]["log_loss"] > min(other["log_loss"] for other in tried.values()):
            break
    favourite = min(tried, key=lambda cell: tried[cell]["log_loss"])
    best_depth = favourite.depth if fits(favourite) else k_max  # if not, it has one cell, and says nothing of the others' depth
    other_depths = set(tried) - {favourite}
    others = [[dataclasses.replace(cell, depth=k) for k in range(best_depth, 0, -1)] for cell in cells[1:]]
    fitting = [next((cell for cell in depths if fits(cell)), None) for depths in others]
    tried |= {cell: attempt(cell, trial) for cell in fitting if cell is not None}
    tried = {cell: result for cell, result in tried.items() if fits(cell)} or tried
    tried = {cell: result for cell, result in tried.items() if cell not in other_depths} or tried
    if finalists > 1:
        longer = trial._replace(config=dataclasses.replace(trial.config, min_steps=final_steps, max_steps=final_steps))
        tried = {cell: attempt(cell, longer) for cell in sorted(tried, key=objective)[:finalists]}
    return min(tried, key=objective), trials


def run_trial(genotype: Genotype, trial: Trial, checkpoints: Checkpoints, key: str) -> dict[str, Any]:
    """Returns depth, log loss on validation, products and objective (log loss + price * products) of one short training.

    Unlike the supernet's cost, a sum over edges as its gradient needs it, `deployed_products` is what the student computes.
    For regression the log loss is the mean squared error in standard deviations.
    """
    saved = checkpoints.load(f"{key}/result")
    if saved is not None:
        return saved
    student, _ = train_student(
        genotype,
        trial.teacher,
        trial.targets,
        trial.config,
        channels=trial.channels,
        supernet=None,
        tracker=Tracker(""),
        checkpoints=checkpoints,
        checkpoint_key=key,
        label="trial",
        evaluate=False,  # it is evaluated once, below
    )
    validation = trial.targets.validation
    rows = Collator(validation.rows, trial.teacher.template)
    fp32 = make_accelerator(trial.config.device, "fp32")
    logits = network_logits(student.to(fp32.device).network, genotype.depth, rows, fp32).astype(float)
    loss = trial.targets.task.validation_loss(validation.labels, logits)
    products = deployed_products(genotype, trial.teacher.pair)
    shape = " ".join(f"{s}>{t} {o}" for s, t, o in genotype.operations)
    steps = trial.config.max_steps
    found = {
        "depth": genotype.depth,
        "cell": shape,
        "steps": steps,
        "log_loss": loss,
        "products": products,
        "objective": loss + trial.price * products,
    }
    log.info("trial K=%d %s, %d steps: log loss %.4f, %d products", genotype.depth, shape, steps, loss, products)
    checkpoints.save(f"{key}/result", found)
    return found
