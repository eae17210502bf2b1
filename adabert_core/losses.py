"""The three losses (AdaBERT eqs. 4-9). Comes in: logits and targets as tensors. Goes out: scalars; no state anywhere.

Losses between layers are computed for all (student layer, teacher layer) pairs in one product, because a supernet needs
them for every depth at once. The paper has cross-entropies of classes; sets of labels have binary ones, numbers squared
errors (ALGORITHM section 4); `tasks` knows which belong together.
"""

import functools
from collections.abc import Sequence

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from adabert_core.search_space import matched_layer


def soft_cross_entropy(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """Mean over rows of -sum_c P_T(c) log P_S(c), both (..., B, classes) at `temperature`, times T^2 (Hinton et al. 2015)."""
    target = torch.softmax(teacher_logits / temperature, dim=-1)
    logs = torch.log_softmax(student_logits / temperature, dim=-1)
    return -(target * logs).sum(-1).mean(-1) * temperature**2


def layer_cross_entropies(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Student probe logits (M, B, c) and teacher probe logits (B, J+1, c) -> (M, J+1) mean cross-entropies (eq. 5).

    The teacher's probabilities are taken at temperature 1 and the student's at `temperature`, as the equation has it.
    """
    target = torch.softmax(teacher, dim=-1)
    logs = torch.log_softmax(student / temperature, dim=-1)
    return -torch.einsum("mbc,bjc->mj", logs, target) / student.shape[1]


def layer_weights(log_likelihoods: Tensor, depth: int) -> Tensor:
    """W (depth + 1): softmax over m of the matched probe's mean log-likelihood of the true labels (eq. 6).

    log_likelihoods (J+1): mean over labelled rows of log P_T_j(y | x). A mean, since a sum over thousands of rows
    would make the weights one-hot.
    """
    return torch.softmax(log_likelihoods[_matched(depth, len(log_likelihoods) - 1, log_likelihoods.device)], dim=0)


def probe_distillation(cross_entropies: Tensor, log_likelihoods: Tensor, depth: int) -> Tensor:
    """Scalar sum_m w_m L_KD^m for a student of `depth` cells, from the (M, J+1) matrix of cross-entropies (eq. 6)."""
    teachers = _matched(depth, cross_entropies.shape[1] - 1, cross_entropies.device)
    own = cross_entropies[: depth + 1].gather(1, teachers.unsqueeze(1)).squeeze(1)
    return (layer_weights(log_likelihoods, depth) * own).sum()


@functools.cache
def _matched(depth: int, teacher_layers: int, device: torch.device) -> Tensor:
    """The teacher's layer of each student layer 0..depth; kept, because a GPU waits for every list that is sent to it."""
    return torch.tensor([matched_layer(m, depth, teacher_layers) for m in range(depth + 1)], device=device)


def label_cross_entropy(logits: Tensor, labels: Tensor, weights: Tensor | None = None) -> Tensor:
    """Scalar mean cross-entropy over the rows whose label is known (>= 0), 0 where none is; logits (B, c), labels (B).

    `weights` (c) multiply the rows of each class; the mean stays one over rows.
    """
    known = (labels >= 0).sum().clamp(min=1)
    return F.cross_entropy(logits, labels, weights, ignore_index=-1, reduction="sum") / known


def soft_binary_cross_entropy(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """Mean over rows and labels of the cross-entropy of yes and no, both (B, labels) at `temperature`, times T^2."""
    target = torch.sigmoid(teacher_logits / temperature)
    return F.binary_cross_entropy_with_logits(student_logits / temperature, target) * temperature**2


def layer_binary_cross_entropies(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Student probe logits (M, B, c) and teacher probe logits (B, J+1, c) -> (M, J+1) means; temperatures as for classes."""
    target, scaled = torch.sigmoid(teacher), student / temperature
    yes, no = F.logsigmoid(scaled), F.logsigmoid(-scaled)
    total = torch.einsum("mbc,bjc->mj", yes, target) + torch.einsum("mbc,bjc->mj", no, 1 - target)
    return -total / (student.shape[1] * student.shape[2])


def label_binary_cross_entropy(logits: Tensor, labels: Tensor, weights: Tensor | None = None) -> Tensor:
    """Scalar mean over known rows and labels; logits and labels (B, c), a row of labels 0 and 1, or -1 where it is not known.

    `weights` (c) multiply the term of every label that is there.
    """
    known = labels[:, 0] >= 0
    wanted = labels.clamp(min=0).to(logits.dtype)
    terms = F.binary_cross_entropy_with_logits(logits, wanted, pos_weight=weights, reduction="none").mean(1)
    return (terms * known).sum() / known.sum().clamp(min=1)


def layer_squared_errors(student: Tensor, teacher: Tensor) -> Tensor:
    """Student probe outputs (M, B, 1) and teacher probe outputs (B, J+1, 1) -> (M, J+1) mean squared differences."""
    return (student.squeeze(2)[:, :, None] - teacher.squeeze(2)).square().mean(1)


def label_squared_error(outputs: Tensor, numbers: Tensor) -> Tensor:
    """Scalar mean over the rows whose number is known (not NaN), 0 where none is; outputs (B, 1), numbers (B)."""
    known = ~numbers.isnan()
    errors = (outputs[:, 0] - numbers.nan_to_num()).square() * known
    return errors.sum() / known.sum().clamp(min=1)


def on_device(weights: Sequence[float] | None, beside: Tensor) -> Tensor | None:
    """Weights as a tensor of the same type and place as another, None for none."""
    return None if weights is None else torch.tensor(weights, dtype=beside.dtype, device=beside.device)


def efficiency(edge_gates: Tensor, depth_gate: Tensor, costs: Tensor) -> Tensor:
    """Scalar L_E in [0, 1] (eq. 8): (K / k_max) times the mean over edges of the chosen operations' costs.

    edge_gates (edges, operations), depth_gate (k_max), costs (operations) with the dearest at 1.
    """
    depths = torch.arange(1, len(depth_gate) + 1, device=depth_gate.device, dtype=depth_gate.dtype)
    return (depth_gate * depths).sum() / len(depth_gate) * (edge_gates @ costs).mean()


def mix_over_depths(losses: Tensor, depth_gate: Tensor) -> Tensor:
    """Losses (K) of depths 1..K and a hard gate (k_max) at K -> the loss at K, with a gradient that reaches every depth.

    The loss at K serves as baseline: a depth that was not computed counts as no better and no worse, otherwise its
    missing loss would read as a perfect one.
    """
    baseline = losses[-1].detach()
    return baseline + (depth_gate[: len(losses)] * (losses - baseline)).sum()
