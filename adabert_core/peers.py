"""What a student is compared with: known small classifiers behind the network's interface, trained and timed as it is.

Comes in: token ids and attention mask. Goes out: layer summaries and logits, as of `network.AdaBertNetwork`. Everything starts
at random but the word vectors, which are the teacher's, as a student's are. A transformer's layers learn from the teacher's
probes as cells do; the others have one summary, what their classifier reads, and learn from the last probe (`matched_layer`).
"""

import contextlib
from collections.abc import Callable

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from adabert_core.dropout import Dropout, replace_dropout
from adabert_core.network import AdaBertNetwork, Gates, split_pair
from adabert_core.operations import masked_mean

WORD = 256  # all components that the teacher's word vectors have
_WIDTHS = (3, 4, 5)


class BiLSTM(nn.Module):
    """The last states of a forward and a backward LSTM of 150 units (Tang et al. 2019)."""

    def __init__(self) -> None:
        super().__init__()
        self.forwards, self.backwards = (nn.LSTM(WORD, 150, batch_first=True) for _ in range(2))
        self.width = 300

    def forward(self, x: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
        """Words (B, L, WORD) -> (B, 300). The backward one reads every text turned round, its pads left at the end."""
        length = mask.sum(1, keepdim=True).long()  # (B, 1)
        position = torch.arange(ids.shape[1], device=ids.device).unsqueeze(0)
        turned = torch.where(position < length, length - 1 - position, position)  # (B, L)
        back = x.gather(1, turned.unsqueeze(-1).expand_as(x))
        last = (length - 1).clamp(min=0).unsqueeze(-1)  # (B, 1, 1)
        kind = x.device.type  # oneDNN has no training LSTM for bf16
        exact = torch.autocast(kind, enabled=False) if torch.is_autocast_enabled(kind) else contextlib.nullcontext()
        with exact:
            states = (self.forwards(x.float())[0], self.backwards(back.float())[0])
        return torch.cat([s.gather(1, last.expand(-1, -1, s.shape[-1])).squeeze(1) for s in states], dim=-1)


class TextCNN(nn.Module):
    """The maxima over time of 100 filters each of width 3, 4 and 5 (Kim 2014)."""

    def __init__(self) -> None:
        super().__init__()
        self.filters = nn.ModuleList(nn.Conv1d(WORD, 100, width) for width in _WIDTHS)
        self.width = 300

    def forward(self, x: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
        """Words (B, L, WORD) -> (B, 300); of the windows, those count that start at a real position."""
        image, real = x.transpose(1, 2), mask.unsqueeze(1)
        found = []
        for width, convolution in zip(_WIDTHS, self.filters, strict=True):
            windows = convolution(F.pad(image, (0, width - 1)))
            found.append((F.relu(windows) * real).amax(-1))
        return torch.cat(found, dim=-1)


class WordMean(nn.Module):
    """The mean word vector, rare words weighing more by Zipf's law: log(1 + rank), as in model2vec; vocabularies are sorted."""

    def __init__(self, vocab_size: int) -> None:
        super().__init__()
        self.width, self.vocab_size = WORD, vocab_size

    def forward(self, x: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
        """Words (B, L, WORD) -> (B, WORD)."""
        weights = torch.log1p(ids.float()) / torch.log(torch.tensor(float(self.vocab_size)))
        return masked_mean(x * weights.unsqueeze(-1), mask.unsqueeze(-1))


class EncoderPeer(nn.Module):
    """An encoder of one text and a classifier; of a pair it sees both codes, their distance and their product (Tang et al. 2019).

    `hidden` is the width of a ReLU layer before the classifier, 0 for none.
    """

    def __init__(
        self, encoder: nn.Module, vocab_size: int, hidden: int, num_labels: int, separator_id: int | None, dropout: float
    ) -> None:
        super().__init__()
        self.separator_id, self.encoder = separator_id, encoder
        self.word = nn.Embedding(vocab_size, WORD)
        self.dropout = Dropout(dropout)
        width = int(encoder.width) * (1 if separator_id is None else 4)  # type: ignore[arg-type]
        self.hidden = nn.Linear(width, hidden) if hidden else None
        self.summary_width = hidden or width
        self.classifier = nn.Linear(self.summary_width, num_labels)

    def tables(self) -> dict[str, Tensor]:
        """The embedding tables that can start from the teacher's."""
        return {"word": self.word.weight}

    def summaries(self, input_ids: Tensor, attention_mask: Tensor, depth: int, gates: Gates | None = None) -> Tensor:
        """Ids and mask (B, L) -> (1, B, features)."""
        if self.separator_id is None:
            features = self._code(input_ids, attention_mask)
        else:
            (ids_a, mask_a), (ids_b, mask_b) = split_pair(input_ids, attention_mask, self.separator_id)
            a, b = self._code(ids_a, mask_a), self._code(ids_b, mask_b)
            features = torch.cat([a, b, (a - b).abs(), a * b], dim=-1)
        if self.hidden is not None:
            features = F.relu(self.hidden(features))
        return features.unsqueeze(0)

    def _code(self, ids: Tensor, mask: Tensor) -> Tensor:
        return self.encoder(self.dropout(self.word(ids)) * mask.unsqueeze(-1), ids, mask)

    def logits(self, summaries: Tensor, depth: int) -> Tensor:
        """Summaries (1, B, features) -> logits (B, classes)."""
        return self.classifier(self.dropout(summaries[0]))


class TransformerPeer(nn.Module):
    """A BERT of random weights that reads a pair as one sequence; its summaries are the means of its layers' states."""

    def __init__(
        self,
        vocab_size: int,
        layers: int,
        hidden: int,
        max_length: int,
        num_labels: int,
        separator_id: int | None,
        dropout: float,
    ) -> None:
        super().__init__()
        from transformers import BertConfig, BertModel  # here: the other peers do without

        settings = BertConfig(
            vocab_size=vocab_size,
            hidden_size=hidden,
            num_hidden_layers=layers,
            num_attention_heads=hidden // 64,
            intermediate_size=4 * hidden,
            max_position_embeddings=max_length,
            hidden_dropout_prob=dropout,
            attention_probs_dropout_prob=dropout,
        )
        self.separator_id, self.summary_width = separator_id, hidden
        self.bert = BertModel(settings, add_pooling_layer=False)
        replace_dropout(self.bert)
        self.dropout = Dropout(dropout)
        self.classifier = nn.Linear(hidden, num_labels)

    def tables(self) -> dict[str, Tensor]:
        """The embedding tables that can start from the teacher's."""
        known = self.bert.embeddings
        names = {"word": known.word_embeddings, "position": known.position_embeddings, "segment": known.token_type_embeddings}
        return {name: table.weight for name, table in names.items()}

    def summaries(self, input_ids: Tensor, attention_mask: Tensor, depth: int, gates: Gates | None = None) -> Tensor:
        """Ids and mask (B, L) -> (layers + 1, B, hidden)."""
        segments = torch.zeros_like(input_ids)
        if self.separator_id is not None:
            separators = (input_ids == self.separator_id).long()
            segments = ((separators.cumsum(1) - separators) > 0).long()
        states = self.bert(
            input_ids=input_ids, attention_mask=attention_mask, token_type_ids=segments, output_hidden_states=True
        ).hidden_states
        return torch.stack([masked_mean(state, attention_mask.unsqueeze(-1)) for state in states])

    def logits(self, summaries: Tensor, depth: int) -> Tensor:
        """Summaries (layers + 1, B, hidden) -> logits (B, classes)."""
        return self.classifier(self.dropout(summaries[depth]))


Network = AdaBertNetwork | EncoderPeer | TransformerPeer
TRANSFORMERS = {"transformer_2x128": (2, 128), "transformer_4x256": (4, 256)}  # BERT-tiny's and BERT-mini's shapes
ENCODERS: dict[str, tuple[Callable[[int], nn.Module], int]] = {  # (of the vocabulary's size, hidden width)
    "bilstm": (lambda vocab_size: BiLSTM(), 400),
    "textcnn": (lambda vocab_size: TextCNN(), 0),
    "static_linear": (WordMean, 0),
    "static_mlp": (WordMean, 256),
}


def make_peer(
    architecture: str, *, vocab_size: int, max_length: int, num_labels: int, separator_id: int | None, dropout: float
) -> tuple[EncoderPeer | TransformerPeer, int]:
    """Returns a fresh peer and its depth: how many of its layers learn from the teacher's, 0 where it has none."""
    if architecture in TRANSFORMERS:
        layers, hidden = TRANSFORMERS[architecture]
        return TransformerPeer(vocab_size, layers, hidden, max_length, num_labels, separator_id, dropout), layers
    encoder, hidden = ENCODERS[architecture]
    return EncoderPeer(encoder(vocab_size), vocab_size, hidden, num_labels, separator_id, dropout), 0
