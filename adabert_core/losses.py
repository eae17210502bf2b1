"""The three losses (AdaBERT eqs. 4-9). Comes in: logits and targets as tensors. Goes out: scalars; no state anywhere.

Cross-entropies between layers are computed for all (student layer, teacher layer) pairs in one product, because a
supernet needs them for every depth at once.
"""

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
    layers = [matched_layer(m, depth, len(log_likelihoods) - 1) for m in range(depth + 1)]
    return torch.softmax(log_likelihoods[layers], dim=0)


def probe_distillation(cross_entropies: Tensor, log_likelihoods: Tensor, depth: int) -> Tensor:
    """Scalar sum_m w_m L_KD^m for a student of `depth` cells, from the (M, J+1) matrix of cross-entropies (eq. 6)."""
    teacher_layers = cross_entropies.shape[1] - 1
    students = torch.arange(depth + 1, device=cross_entropies.device)
    teachers = torch.tensor([matched_layer(m, depth, teacher_layers) for m in range(depth + 1)], device=cross_entropies.device)
    return (layer_weights(log_likelihoods, depth) * cross_entropies[students, teachers]).sum()


def label_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Scalar mean cross-entropy over the rows whose label is known (>= 0), 0 where none is; logits (B, c), labels (B)."""
    known = (labels >= 0).sum().clamp(min=1)
    return F.cross_entropy(logits, labels, ignore_index=-1, reduction="sum") / known


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
