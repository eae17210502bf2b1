"""Stage search: supernet weights and alpha trained together on all rows, then the structure they favour.

Comes in: TeacherDir, TargetsDir. Goes out: SearchDir with genotype.json, supernet.safetensors, trace.json, costs.json.
"""

import logging
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from safetensors.torch import save_file
from torch import Tensor

from adabert_core.artifacts import write_json
from adabert_core.budget import Budget
from adabert_core.config import RetrainConfig, SearchConfig
from adabert_core.costs import operation_costs
from adabert_core.distillation import separator_of, start_from_teacher
from adabert_core.early_warnings import collapsed_cell, over_budget
from adabert_core.gumbel import anneal, sample
from adabert_core.losses import efficiency, mix_over_depths
from adabert_core.runtime import make_accelerator, seed_everything
from adabert_core.search_space import PRIMITIVES, Genotype, cell_cost
from adabert_core.stages import StageFrame, StageReport, stage_frame
from adabert_core.storage import Checkpoints
from adabert_core.supernet import Supernet, build_supernet, hard_gates
from adabert_core.target_rows import TargetRows, Targets, read_targets
from adabert_core.teacher import Teacher, load_teacher, vocabulary_of
from adabert_core.tokens import Collator
from adabert_core.tracking import Tracker
from adabert_core.training import LengthBuckets, fit, total_steps
from adabert_core.trials import Trial, choose_by_trials

log = logging.getLogger(__name__)
STAGE = "search"
_TRACE_POINTS = 100
_PRODUCTS_FOR_BETA = 40  # of one position: in trials so many more must lower the log loss by beta


class Trace:
    """What the report draws of a search: a few hundred points, part of the checkpoint."""

    def __init__(self) -> None:
        self.points: list[dict[str, float]] = []

    def state_dict(self) -> dict[str, list[dict[str, float]]]:
        """The points."""
        return {"points": self.points}

    def load_state_dict(self, state: dict[str, list[dict[str, float]]]) -> None:
        """Restores the points."""
        self.points = state["points"]


def run(
    config: SearchConfig, inputs: dict[str, Path], output: Path, *, tracker: Tracker, checkpoints: Checkpoints
) -> StageReport:
    """Searches and returns the derived structure's depth and cost."""
    if config.genotype:
        return take_given(config, inputs, output, tracker=tracker, checkpoints=checkpoints)
    with stage_frame(STAGE, config, inputs, output, tracker) as frame:
        teacher, targets = load_teacher(inputs["teacher"]), read_targets(inputs["targets"])
        accelerator = make_accelerator(config.device, config.precision)
        generator = seed_everything(config.seed)
        supernet = fresh_supernet(config, teacher, targets, generator)
        start_from_teacher(supernet.distilled.network, targets.vectors, config.train_words)
        supernet.to(accelerator.device).train()
        rows = Collator(targets.train.rows, teacher.template)
        order = targets.train.with_real_share(config.real_share)
        steps = total_steps(len(order), config.batch_size, config.epochs, config.min_steps, config.max_steps)
        costs = operation_costs(config.cost, config.channels, checkpoints, f"{frame.checkpoint_key}/costs")
        trace = Trace()
        search_structure(
            supernet,
            rows,
            targets.train,
            targets.log_likelihoods,
            config,
            steps=steps,
            costs=costs,
            trace=trace,
            accelerator=accelerator,
            generator=generator,
            tracker=tracker,
            checkpoints=checkpoints,
            checkpoint_key=f"{frame.checkpoint_key}/state",
        )
        genotype = supernet.genotype()
        trials: list[dict[str, Any]] = []
        if config.trial_steps:
            budget = Budget(config.target, teacher, config.channels, checkpoints, f"{frame.checkpoint_key}/latencies")
            genotype, trials = choose_by_trials(
                supernet.candidates(config.trial_cells, config.trial_explored, generator),
                Trial(
                    teacher,
                    targets,
                    trial_settings(config),
                    proxy_channels(config),
                    0.0 if budget.limit else config.beta / _PRODUCTS_FOR_BETA,
                ),
                k_max=config.k_max,
                finalists=config.trial_finalists,
                final_steps=config.trial_final_steps,
                checkpoints=checkpoints,
                checkpoint_key=f"{frame.checkpoint_key}/trials",
                fits=budget.fits,
            )
            if budget.limit:
                frame.metrics["latency_ms"] = budget.milliseconds(genotype)
                frame.warn(over_budget(frame.metrics["latency_ms"], budget.limit))
        else:  # a cell of pools that trials have held against the plain one is no collapse
            frame.warn(collapsed_cell(genotype))
        write_json(frame.path / "trials.json", trials)
        write_structure(frame, genotype, config.cost, costs)
        save_file({k: v.contiguous() for k, v in supernet.state_dict().items()}, frame.path / "supernet.safetensors")
        write_json(frame.path / "trace.json", trace.points)
        tracker.artifact(frame.path / "genotype.json")
        frame.metrics["steps"] = steps
        log.info("derived K=%d: %s", genotype.depth, "  ".join(f"{s}>{t} {o}" for s, t, o in genotype.operations))
    checkpoints.clear(frame.checkpoint_key)
    return frame.finished


def proxy_channels(config: SearchConfig) -> int:
    """The width of supernet and trials."""
    return config.proxy_channels or config.channels


def fresh_supernet(config: SearchConfig, teacher: Teacher, targets: Targets, generator: torch.Generator) -> Supernet:
    """Returns an untrained supernet for the teacher's tokenizer and the targets' task."""
    return build_supernet(
        k_max=config.k_max,
        channels=proxy_channels(config),
        num_labels=len(targets.info["labels"]),
        vocab_size=vocabulary_of(teacher),
        max_length=teacher.max_length,
        separator_id=separator_of(teacher),
        dropout=config.dropout,
        generator=generator,
        task=targets.task,
    )


def take_given(
    config: SearchConfig, inputs: dict[str, Path], output: Path, *, tracker: Tracker, checkpoints: Checkpoints
) -> StageReport:
    """Writes the SearchDir of the structure that `search.genotype` gives, with nothing searched and no weights to inherit."""
    with stage_frame(STAGE, config, inputs, output, tracker) as frame:
        genotype = Genotype.parse(config.genotype)
        costs = operation_costs(config.cost, config.channels, checkpoints, f"{frame.checkpoint_key}/costs")
        for name in ("trials", "trace"):
            write_json(frame.path / f"{name}.json", [])
        write_structure(frame, genotype, config.cost, costs)
    checkpoints.clear(frame.checkpoint_key)
    return frame.finished


def write_structure(frame: StageFrame, genotype: Genotype, kind: str, costs: list[float]) -> None:
    """Writes genotype.json and costs.json, and reports depth and cost."""
    (frame.path / "genotype.json").write_text(genotype.to_json(), encoding="utf-8")
    write_json(frame.path / "costs.json", {"kind": kind, "costs": dict(zip(PRIMITIVES, costs, strict=True))})
    frame.metrics.update({"depth": genotype.depth, "cost": cell_cost(genotype, costs)})


def trial_settings(config: SearchConfig) -> RetrainConfig:
    """A short retraining with the search's own batches, losses, seed and device."""
    names = ("batch_size", "gamma", "final_weight", "temperature", "real_share", "train_words", "seed", "device", "precision")
    shared = {name: getattr(config, name) for name in names}
    return RetrainConfig(min_steps=config.trial_steps, max_steps=config.trial_steps, **shared)


def search_structure(
    supernet: Supernet,
    rows: Collator,
    targets: TargetRows,
    log_likelihoods: Tensor,
    config: SearchConfig,
    *,
    steps: int,
    costs: list[float],
    trace: Trace,
    accelerator: Accelerator,
    generator: torch.Generator,
    tracker: Tracker,
    checkpoints: Checkpoints,
    checkpoint_key: str,
) -> None:
    """Trains the supernet's weights and alpha on the same batches (AdaBERT section 3.3, one-level optimisation)."""
    device = accelerator.device
    cost_vector = torch.tensor(costs, device=device)
    log_likelihoods = log_likelihoods.to(device)
    weights = _weight_optimizer(supernet, config)
    alphas = {
        name: torch.optim.Adam([alpha], lr=config.alpha_learning_rate, betas=(0.5, 0.999), weight_decay=config.alpha_weight_decay)
        for name, alpha in (("alpha_c", supernet.alpha_c), ("alpha_K", supernet.alpha_K))
    }
    floor = config.learning_rate_end / config.learning_rate
    schedule = torch.optim.lr_scheduler.LambdaLR(
        weights, lambda step: floor + (1 - floor) * (1 + math.cos(math.pi * min(step / steps, 1))) / 2
    )
    # A depth's loss says little while its operations are drawn at random, and an operation's while it has not learned.
    starts = {"alpha_c": int(config.alpha_warmup_fraction * steps), "alpha_K": int(config.depth_warmup_fraction * steps)}
    order = targets.with_real_share(config.real_share)
    trace_every = max(steps // _TRACE_POINTS, 1)

    def loss(index: np.ndarray, step: int) -> tuple[Tensor, dict[str, float | Tensor]]:
        tau = anneal(step, steps, config.tau_start, config.tau_end)
        operations, depths = sample(supernet.alpha_c, tau, generator), sample(supernet.alpha_K, tau, generator)
        batch, tried = rows(index, device), range(1, int(depths.detach().argmax()) + 2)
        by_depth, terms = supernet.distilled.losses(
            supernet.distilled.outputs(batch["input_ids"], batch["attention_mask"], tried, hard_gates(operations)),
            targets.batch(index, device),
            log_likelihoods,
            tried,
            gamma=config.gamma,
            final_weight=config.final_weight,
            temperature=config.temperature,
        )
        cost = efficiency(operations, depths, cost_vector)
        figures: dict[str, float | Tensor] = {**terms, "loss_efficiency": cost.detach(), "tau": tau}
        figures["learning_rate"] = schedule.get_last_lr()[0]
        if step % trace_every == 0 or step + 1 == steps:
            figures.update(structure_figures(supernet, cost_vector))
            trace.points.append({"step": float(step), **{name: float(value) for name, value in figures.items()}})
        return mix_over_depths(by_depth, depths) + config.beta * cost, figures

    def apply(step: int) -> None:
        accelerator.clip_grad_norm_(supernet.weights(), config.clip_norm)
        weights.step()
        schedule.step()
        for name, optimizer in alphas.items():
            if step >= starts[name]:
                optimizer.step()

    fit(
        label="search",
        steps=steps,
        batches=LengthBuckets(rows.lengths, config.batch_size, config.seed, order),
        loss=loss,
        apply=apply,
        state={"supernet": supernet, "weights": weights, **alphas, "schedule": schedule, "trace": trace},
        optimizers=[weights, *alphas.values()],
        accelerator=accelerator,
        generator=generator,
        tracker=tracker,
        checkpoints=checkpoints,
        checkpoint_key=checkpoint_key,
    )


@torch.no_grad()
def structure_figures(supernet: Supernet, costs: Tensor) -> dict[str, float]:
    """What alpha expects now: entropies in nats, depth in cells, cost as L_E in [0, 1]."""
    edges, depths = torch.softmax(supernet.alpha_c, -1), torch.softmax(supernet.alpha_K, -1)
    cells = torch.arange(1, len(depths) + 1, device=depths.device)
    return {
        "alpha_entropy": float(-(edges * edges.log()).sum(-1).mean()),
        "depth_entropy": float(-(depths * depths.log()).sum()),
        "expected_depth": float((depths * cells).sum()),
        "expected_cost": float(efficiency(edges, depths, costs)),
    }


def _weight_optimizer(supernet: Supernet, config: SearchConfig) -> torch.optim.Optimizer:
    if config.optimizer == "adamw":
        return torch.optim.AdamW(supernet.weights(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=True)
    return torch.optim.SGD(
        supernet.weights(), lr=config.learning_rate, momentum=config.momentum, weight_decay=config.weight_decay
    )
