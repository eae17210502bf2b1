"""The student as a Hugging Face model: after `import adabert_core`, the Auto classes and pipelines load a StudentDir."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput

from adabert_core.network import AdaBertNetwork
from adabert_core.peers import Network, make_peer
from adabert_core.search_space import Genotype

_LOSSES: dict[str | None, Callable[[Tensor, Tensor], Tensor]] = {
    None: F.cross_entropy,
    "single_label_classification": F.cross_entropy,
    "multi_label_classification": F.binary_cross_entropy_with_logits,
    "regression": lambda outputs, numbers: F.mse_loss(outputs.squeeze(-1), numbers),
}


class AdaBertConfig(PreTrainedConfig):
    """Architecture of a derived student, `genotype` being the content of genotype.json, or of a peer (see `peers`).

    Students of pairs have an `alignment` and `position_vectors`, those of single texts `ngrams`, and the summaries of all of them
    `maxima`; those of before 0.3.0 have no maxima, those of single texts from before 0.5.0 have position vectors, from before
    0.8.0 no n-grams.
    A multi-label student has `thresholds` as well: the probability of each label above which it is given.
    """

    model_type = "adabert"

    def __init__(
        self,
        vocab_size: int = 30522,
        channels: int = 128,
        max_position_embeddings: int = 128,
        genotype: dict[str, Any] | None = None,
        separator_id: int | None = None,
        dropout: float = 0.1,
        architecture: str = "adabert",
        alignment: bool = False,
        maxima: bool = False,
        position_vectors: bool = True,
        ngrams: bool = False,
        **kwargs: Any,
    ) -> None:
        self.vocab_size, self.channels, self.max_position_embeddings = vocab_size, channels, max_position_embeddings
        self.genotype = genotype or {"depth": 1, "edges": []}
        self.separator_id, self.dropout, self.architecture = separator_id, dropout, architecture
        self.alignment, self.maxima, self.position_vectors, self.ngrams = alignment, maxima, position_vectors, ngrams
        super().__init__(**kwargs)


class AdaBertForSequenceClassification(PreTrainedModel):
    """The derived network under the interface of a Hugging Face sequence classifier."""

    config_class = AdaBertConfig
    base_model_prefix = "network"

    def __init__(self, config: AdaBertConfig) -> None:
        super().__init__(config)
        shared: dict[str, Any] = {
            "vocab_size": config.vocab_size,
            "max_length": config.max_position_embeddings,
            "num_labels": int(config.num_labels or 2),
            "separator_id": config.separator_id,
            "dropout": config.dropout,
        }
        self.network: Network
        if config.architecture != "adabert":
            self.network, self.depth = make_peer(config.architecture, **shared)
        else:
            genotype = Genotype.from_dict(config.genotype)
            self.depth = genotype.depth
            self.network = AdaBertNetwork(
                channels=config.channels,
                depth=genotype.depth,
                candidates=genotype.candidates(),
                depths=[genotype.depth],
                alignment=config.alignment,
                maxima=config.maxima,
                position_vectors=config.position_vectors,
                ngrams=config.ngrams,
                **shared,
            )
        self.post_init()

    def _init_weights(self, module: torch.nn.Module) -> None:
        """Every module keeps the initialisation torch gave it."""

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        labels: Tensor | None = None,
        **kwargs: Any,
    ) -> SequenceClassifierOutput:
        """Ids and mask (B, L) -> logits (B, classes), with the loss of the config's problem_type where labels are given.

        The texts of a pair are told apart by the separator, so token_type_ids are taken and not needed.
        """
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        logits = self.network.logits(self.network.summaries(input_ids, mask, self.depth), self.depth)
        loss = None if labels is None else _LOSSES[self.config.problem_type](logits, labels)
        return SequenceClassifierOutput(loss=loss, logits=logits)


AutoConfig.register("adabert", AdaBertConfig, exist_ok=True)
AutoModelForSequenceClassification.register(AdaBertConfig, AdaBertForSequenceClassification, exist_ok=True)
