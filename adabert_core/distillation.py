"""What search and retraining share of a student in training: its start from the teacher, its probes, its task losses."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from adabert_core.losses import probe_distillation
from adabert_core.network import Gates
from adabert_core.peers import Network
from adabert_core.tasks import CLASSIFICATION, Task
from adabert_core.teacher import Teacher


class Outputs(NamedTuple):
    """What losses are made of."""

    probes: Tensor  # (deepest + 1, B, classes): the probes' logits of every layer
    logits: Tensor  # (depths, B, classes): the network's logits at every depth asked for


class DistilledNetwork(nn.Module):
    """A network with one linear probe per layer 0..depth; the probes serve training only."""

    def __init__(self, network: Network, depth: int, num_labels: int, task: Task = CLASSIFICATION) -> None:
        super().__init__()
        self.network, self.task = network, task
        self.probes = nn.ModuleList(nn.Linear(network.summary_width, num_labels) for _ in range(depth + 1))

    def outputs(self, input_ids: Tensor, attention_mask: Tensor, depths: Sequence[int], gates: Gates | None = None) -> Outputs:
        """Ids and mask (B, L) -> what the network and its probes say, in float32."""
        summaries = self.network.summaries(input_ids, attention_mask, max(depths), gates)
        own = torch.stack([probe(s) for probe, s in zip(self.probes[: max(depths) + 1], summaries, strict=False)])
        logits = torch.stack([self.network.logits(summaries, depth) for depth in depths])
        return Outputs(own.float(), logits.float())

    def losses(
        self,
        outputs: Outputs,
        answers: tuple[Tensor, Tensor, Tensor],
        log_likelihoods: Tensor,
        depths: Sequence[int],
        *,
        gamma: float,
        final_weight: float,
        temperature: float,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Returns (1 - gamma) L_CE + gamma L_KD for every depth of `outputs` (depths,) and the terms at the last of them.

        L_KD = (1 - final_weight) * probe distillation + final_weight * distillation of the teacher's logits.
        `answers` are labels, teacher logits and probe logits of the rows.
        """
        labels, teacher_logits, probe_logits = answers
        matrix = self.task.layer_losses(outputs.probes, probe_logits, temperature)
        values = []
        terms: dict[str, Tensor] = {}
        for depth, logits in zip(depths, outputs.logits, strict=True):
            label = self.task.hard_loss(logits, labels)
            probe = probe_distillation(matrix, log_likelihoods, depth)
            final = self.task.soft_loss(logits, teacher_logits, temperature)
            values.append((1 - gamma) * label + gamma * ((1 - final_weight) * probe + final_weight * final))
            terms = {"loss_labels": label, "loss_probes": probe, "loss_final": final}
        return torch.stack(values), {name: term.detach() for name, term in terms.items()}


def separator_of(teacher: Teacher) -> int | None:
    """The token id that ends text A of a pair, None for single texts."""
    return teacher.template.middle[0] if teacher.pair else None


@torch.no_grad()
def start_from_teacher(network: Network, vectors: Mapping[str, Tensor], train_words: bool) -> None:
    """Initialises word, position and segment vectors with the first C components of the teacher's (see `vectors`).

    Without `train_words` the words keep theirs.
    """
    for name, table in network.tables().items():
        if name in vectors:
            known = vectors[name][: table.shape[0], : table.shape[1]]
            table[: known.shape[0], : known.shape[1]] = known
    if not train_words:
        network.tables()["word"].requires_grad_(False)
