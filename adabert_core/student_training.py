"""Training of one student from a genotype: what retraining, the search's trials and the control experiment share.

Comes in: a genotype, the teacher's answers. Goes out: the student with the averaged weights that validated best.
"""

import json
import logging
from pathlib import Path
from typing import cast

import numpy as np
import torch
from accelerate import Accelerator
from safetensors.torch import load_file
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from transformers import get_cosine_schedule_with_warmup

from adabert_core.config import RetrainConfig
from adabert_core.cuda_graphs import outputs_at
from adabert_core.distillation import DistilledNetwork, separator_of, start_from_teacher
from adabert_core.evaluate import Best, predict_logits
from adabert_core.peers import Network
from adabert_core.runtime import make_accelerator, seed_everything
from adabert_core.search_space import Genotype
from adabert_core.storage import Checkpoints
from adabert_core.student import AdaBertConfig, AdaBertForSequenceClassification
from adabert_core.target_rows import Targets
from adabert_core.tasks import Task
from adabert_core.teacher import Teacher, vocabulary_of
from adabert_core.tokens import Collator
from adabert_core.tracking import Tracker
from adabert_core.training import LengthBuckets, fit, total_steps

log = logging.getLogger(__name__)
_AVERAGE_STEPS = 4  # the average takes in every fourth step: the weights hardly move between two of them


def train_student(
    genotype: Genotype,
    teacher: Teacher,
    targets: Targets,
    config: RetrainConfig,
    *,
    channels: int,
    supernet: Path | None,
    tracker: Tracker,
    checkpoints: Checkpoints,
    checkpoint_key: str,
    label: str = "student",
    evaluate: bool = True,
) -> tuple[AdaBertForSequenceClassification, float]:
    """Returns the trained student of a genotype, in evaluation mode on the CPU, and its validation score.

    Without `evaluate` it has the last averaged weights, and the score is minus infinity.
    """
    accelerator = make_accelerator(config.device, config.precision)
    generator = seed_everything(config.seed)
    labels, task = targets.info["labels"], targets.task
    student = new_student(
        genotype, teacher, labels, channels, config.dropout, config.architecture, problem_type=task.problem_type
    )
    start_from_teacher(student.network, targets.vectors, config.train_words)
    distilled = DistilledNetwork(student.network, student.depth, len(labels), task)
    if supernet is not None:
        inherit(distilled, supernet)
    distilled.to(accelerator.device).train()
    rows = Collator(targets.train.rows, teacher.template)
    validation = Collator(targets.validation.rows, teacher.template)
    order = targets.train.with_real_share(config.real_share)
    steps = total_steps(len(order), config.batch_size, config.epochs, config.min_steps, config.max_steps)
    optimizer = torch.optim.AdamW(distilled.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=True)
    schedule = get_cosine_schedule_with_warmup(optimizer, round(config.warmup_fraction * steps), steps)
    decay = min(config.ema_decay, 1 - 10 / (steps + 10))  # a short training has no use for a long memory
    average = AveragedModel(student.network, multi_avg_fn=get_ema_multi_avg_fn(decay**_AVERAGE_STEPS), use_buffers=True)
    best = Best()
    likelihoods = targets.log_likelihoods.to(accelerator.device)
    milestones = {round(steps * (i + 1) / config.evaluations) for i in range(config.evaluations)} | {steps} if evaluate else set()

    def loss(index: np.ndarray, step: int) -> tuple[Tensor, dict[str, float | Tensor]]:
        values, terms = distilled.losses(
            outputs(rows(index, accelerator.device)),
            targets.train.batch(index, accelerator.device),
            likelihoods,
            [student.depth],
            gamma=config.gamma,
            final_weight=config.final_weight,
            temperature=config.temperature,
        )
        return values[0], {**terms, "learning_rate": schedule.get_last_lr()[0]}

    def apply(step: int) -> None:
        accelerator.clip_grad_norm_(distilled.parameters(), config.clip_norm)
        optimizer.step()
        schedule.step()
        untrained = step + 1 in milestones and average.n_averaged == 0  # a few steps, and to be evaluated before the fourth
        if (step + 1) % _AVERAGE_STEPS == 0 or step + 1 == steps or untrained:
            average.update_parameters(student.network)
        if step + 1 in milestones:
            logits = task.in_units(network_logits(cast("Network", average.module), student.depth, validation, accelerator))
            known = targets.validation.labels
            found = task.scores(known, task.predictions(logits, task.thresholds(known, logits)))
            found["log_loss"] = task.validation_loss(known, logits)
            log.info(
                "%s step %d: validation %s %.4f, log loss %.4f",
                label,
                step + 1,
                targets.info["metric"],
                found["score"],
                found["log_loss"],
            )
            tracker.metrics({f"validation_{name}": value for name, value in found.items()}, step + 1)
            best.offer(found["score"], step + 1, average.module.state_dict())

    with outputs_at(distilled, student.depth, config.batch_size, accelerator.device) as outputs:
        fit(
            label=label,
            steps=steps,
            batches=LengthBuckets(rows.lengths, config.batch_size, config.seed, order),
            loss=loss,
            apply=apply,
            state={"distilled": distilled, "optimizer": optimizer, "schedule": schedule, "average": average, "best": best},
            optimizers=[optimizer],
            accelerator=accelerator,
            generator=generator,
            tracker=tracker,
            checkpoints=checkpoints,
            checkpoint_key=f"{checkpoint_key}/state",
        )
    student.network.load_state_dict(best.weights if evaluate else average.module.state_dict())
    finish(student.cpu(), task, validation, targets.validation.labels)
    return student.eval(), best.score


@torch.no_grad()
def finish(student: AdaBertForSequenceClassification, task: Task, rows: Collator, labels: np.ndarray) -> None:
    """Makes a trained student answer in the user's units, and chooses its thresholds on validation rows if it needs any."""
    head = student.network.classifier
    weight, bias = task.fold(head.weight, head.bias)
    head.weight.copy_(weight)
    head.bias.copy_(bias)
    if task.thresholded:
        logits = network_logits(student.network, student.depth, rows, make_accelerator("cpu", "fp32"))
        student.config.thresholds = task.thresholds(labels, logits)


def new_student(
    genotype: Genotype,
    teacher: Teacher,
    labels: list[str],
    channels: int,
    dropout: float,
    architecture: str = "adabert",
    problem_type: str | None = None,
) -> AdaBertForSequenceClassification:
    """Returns an untrained student of a genotype, or an untrained peer, for the teacher's tokenizer."""
    settings = AdaBertConfig(
        vocab_size=vocabulary_of(teacher),
        channels=channels,
        max_position_embeddings=teacher.max_length,
        genotype=json.loads(genotype.to_json()),
        separator_id=separator_of(teacher),
        dropout=dropout,
        architecture=architecture,
        alignment=teacher.pair and architecture == "adabert",
        maxima=architecture == "adabert",
        position_vectors=teacher.pair,
        ngrams=not teacher.pair and architecture == "adabert",
        id2label=dict(enumerate(labels)),
        label2id={label: i for i, label in enumerate(labels)},
        pad_token_id=teacher.template.pad_id,
        problem_type=problem_type,
    )
    return AdaBertForSequenceClassification(settings)


def student_thresholds(student: AdaBertForSequenceClassification) -> list[float] | None:
    """The probabilities above which a multi-label student gives its labels; None for other students."""
    return getattr(student.config, "thresholds", None)


def inherit(distilled: DistilledNetwork, supernet: Path) -> None:
    """Loads from a supernet every tensor that the student has too; the names agree by construction."""
    known = load_file(supernet)
    own = distilled.state_dict()
    distilled.load_state_dict({name: known.get(f"distilled.{name}", tensor) for name, tensor in own.items()})


def network_logits(network: Network, depth: int, rows: Collator, accelerator: Accelerator) -> np.ndarray:
    """Logits (rows, classes) of a network in evaluation mode."""
    network.eval()
    found = predict_logits(
        lambda batch: network.logits(network.summaries(batch["input_ids"], batch["attention_mask"], depth), depth),
        rows,
        accelerator,
    )
    network.train()
    return found
