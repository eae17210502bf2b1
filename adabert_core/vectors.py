"""Where a student's word vectors start: what the fine-tuned teacher says of every token, in few dimensions.

Comes in: the teacher and how often each token occurs in the train split. Goes out: tables ordered by principal component,
so that a student of C channels takes the first C columns.
"""

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor

from adabert_core.runtime import frozen
from adabert_core.teacher import Teacher

COMPONENTS = 256
_BATCH = 1024


def word_vectors(teacher: Teacher, counts: np.ndarray, accelerator: Accelerator) -> dict[str, Tensor]:
    """Returns word (V, n), position (P, n) and, where the teacher has them, segment (2, n) vectors; n <= COMPONENTS.

    A token is described by its row of the word table and by the teacher's last hidden state for the token alone
    (as in model2vec): the second carries what fine-tuning taught about words that the train split never shows. Both are
    centred, scaled to equal variance and reduced by principal components in which frequent tokens weigh more.

    Args:
        teacher: the fine-tuned teacher, on its device.
        counts: (V,) occurrences of each token in the train split.
        accelerator: device and precision.
    """
    table = teacher.model.get_input_embeddings().weight.detach().float().cpu()
    alone = _states_alone(teacher, len(table), accelerator)
    weights = torch.from_numpy(np.sqrt(1.0 + counts)).float()
    weights = (weights / weights.sum()).unsqueeze(1)
    parts, scales = [], []
    for part in (table, alone):
        centred = part - (weights * part).sum(0)
        scale = (weights * centred.square()).sum().sqrt().clamp(min=1e-6)
        parts.append(centred / scale)
        scales.append(scale)
    features = torch.cat(parts, dim=1)  # (V, 2H)
    directions = torch.linalg.eigh(features.T @ (weights * features)).eigenvectors.flip(1)[:, :COMPONENTS]
    found = {"word": features @ directions}
    embedded = directions[: table.shape[1]] / scales[0]  # how a vector of the embedding layer is seen in the components
    embeddings = getattr(teacher.model.base_model, "embeddings", None)
    position = getattr(embeddings, "position_embeddings", None)
    if isinstance(position, torch.nn.Embedding) and position.embedding_dim == table.shape[1]:
        first = 0 if position.padding_idx is None else position.padding_idx + 1
        found["position"] = position.weight.detach().float().cpu()[first:] @ embedded
    segment = getattr(embeddings, "token_type_embeddings", None)
    if isinstance(segment, torch.nn.Embedding) and segment.weight.shape == (2, table.shape[1]):
        found["segment"] = segment.weight.detach().float().cpu() @ embedded
    return {name: tensor.contiguous() for name, tensor in found.items()}


def _states_alone(teacher: Teacher, vocabulary: int, accelerator: Accelerator) -> Tensor:
    """Last hidden state (V, H) of every token of the vocabulary between the special tokens of a single text."""
    special = teacher.template
    ids = torch.arange(vocabulary).unsqueeze(1)
    before = torch.tensor(special.prefix, dtype=torch.int64).expand(vocabulary, -1)
    after = torch.tensor(special.suffix, dtype=torch.int64).expand(vocabulary, -1)
    rows = torch.cat([before, ids, after], dim=1)
    found = []
    with frozen(accelerator):
        for batch in rows.split(_BATCH):
            with accelerator.autocast():
                out = teacher.model.base_model(
                    input_ids=batch.to(accelerator.device), attention_mask=torch.ones_like(batch).to(accelerator.device)
                )
            found.append(out.last_hidden_state[:, before.shape[1]].float().cpu())
    return torch.cat(found)
