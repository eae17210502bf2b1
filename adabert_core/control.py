"""The control experiment: random cells of equal or greater cost, retrained as the searched one was, test split included once.

Comes in: a finished run folder. Goes out: control/control-SEED.json in it, and the sentence that says whether searching paid.
"""

import dataclasses
import logging
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from adabert_core.artifacts import digest_of, read_json, read_manifest, write_json
from adabert_core.config import RetrainConfig
from adabert_core.data.dataset import read_dataset
from adabert_core.errors import UserError
from adabert_core.runtime import make_accelerator
from adabert_core.search_space import PRIMITIVES, Genotype, cell_cost, deployed_products, random_cells
from adabert_core.stages import STAGES, check_one_run
from adabert_core.storage import Checkpoints, FolderStore
from adabert_core.student import AdaBertForSequenceClassification
from adabert_core.student_training import network_logits, student_thresholds, train_student
from adabert_core.target_rows import read_targets
from adabert_core.teacher import load_teacher
from adabert_core.tracking import Tracker

log = logging.getLogger(__name__)


def compare_with_random(run: Path, cells: int, seed: int | None = None) -> dict[str, Any]:
    """Returns rows and a sentence; every net is trained from fresh weights with the run's own settings and seed.

    Cells are drawn by `seed`, by default the run's: runs of several seeds would be compared with the same few cells otherwise.
    The run's student stands for the searched cell, unless it inherited weights: then that cell is trained afresh, too.

    Raises:
        UserError: the folder has no whole run, or the run's student is a peer, without cells.
    """
    run = run if (run / "prepare_data").is_dir() else run.resolve().parent
    made = {name: read_manifest(run / stage, stage) for name, stage in STAGES["benchmark"].inputs.items()}
    check_one_run(made)
    retrained = made["student"]
    if retrained.config["architecture"] != "adabert":
        raise UserError(f"{run}: its student is a {retrained.config['architecture']}, which has no cell to compare.")
    dataset, targets = read_dataset(run / "prepare_data"), read_targets(run / "distill_targets")
    teacher, searched = load_teacher(run / "finetune_teacher"), Genotype.load(run / "search" / "genotype.json")
    channels = made["search"].config["channels"]
    config = dataclasses.replace(RetrainConfig(**retrained.config), inherit=False)
    seed = config.seed if seed is None else seed
    table = read_json(run / "search" / "costs.json")["costs"]
    costs = [table[name] for name in PRIMITIVES]
    rows, right = teacher.collator(dataset.split("test")), dataset.split("test").labels
    store = Checkpoints(FolderStore(run / "checkpoints"))
    drawn = {f"random {i + 1}": cell for i, cell in enumerate(random_cells(searched, costs, cells, seed))}
    found, answers = [], []
    for name, genotype in ({"searched": searched} | drawn).items():
        log.info("%s: %s", name, "  ".join(f"{s}>{t} {o}" for s, t, o in genotype.operations))
        key = f"control/{digest_of([retrained.digest, genotype.to_json()])[:16]}"
        if name == "searched" and not retrained.config["inherit"]:
            student = AdaBertForSequenceClassification.from_pretrained(run / "retrain", use_safetensors=True)
            validation = retrained.metrics["validation_score"]
        else:
            student, validation = train_student(
                genotype,
                teacher,
                targets,
                config,
                channels=channels,
                supernet=None,
                tracker=Tracker(""),
                checkpoints=store,
                checkpoint_key=key,
            )
        logits = network_logits(student.network, genotype.depth, rows, make_accelerator("cpu", "fp32"))
        predictions = dataset.task.predictions(logits, student_thresholds(student))
        answers.append(predictions)
        found.append(
            {
                "name": name,
                "cell": str(genotype),
                "cost": cell_cost(genotype, costs),
                "products": deployed_products(genotype, teacher.pair),
                "validation": validation,
                "test": dataset.task.scores(right, predictions)["score"],
                "test_loss": dataset.task.validation_loss(right, logits.astype(float)),
            }
        )
        store.clear(key)
    error = lead_error(right, answers, lambda labels, said: dataset.task.scores(labels, said)["score"])
    result = {"metric": dataset.metric, "rows": found, "standard_error": error, "sentence": _sentence(found, error)}
    (run / "control").mkdir(exist_ok=True)
    write_json(run / "control" / f"control-{seed}.json", result)
    return result


def lead_error(labels: np.ndarray, answers: list[np.ndarray], score: Callable[[np.ndarray, np.ndarray], float]) -> float:
    """Standard error of the first model's lead over the mean of the others: what other rows of the kind would have changed.

    By 200 draws of the rows with replacement, the same for all models (Efron 1979): rows that all get right count little.
    What other seeds of training would have changed comes on top.
    """
    rng, leads = np.random.default_rng(0), []
    for _ in range(200):
        drawn = rng.integers(len(labels), size=len(labels))
        first, *others = (score(labels[drawn], said[drawn]) for said in answers)
        leads.append(first - statistics.fmean(others))
    return statistics.stdev(leads)


def _sentence(rows: list[dict[str, Any]], error: float) -> str:
    searched, others = rows[0], rows[1:]
    means = {
        name: statistics.fmean(row[name] for row in others) for name in ("validation", "test", "test_loss", "cost", "products")
    }
    verb = "at least as good as" if searched["test"] >= means["test"] else "worse than"
    within = ", a difference within one standard error," if abs(searched["test"] - means["test"]) <= error else ""
    return (
        f"The searched cell is {verb} the mean of {len(others)} random cells on the test split{within} "
        f"({searched['test']:.4f} against {means['test']:.4f}, standard error {error:.4f}; log loss {searched['test_loss']:.4f} "
        f"against {means['test_loss']:.4f}; validation {searched['validation']:.4f} against {means['validation']:.4f}) "
        f"at {searched['cost'] / max(means['cost'], 1e-9):.2f} of their cost and "
        f"{searched['products'] / max(means['products'], 1):.2f} of their products."
    )
