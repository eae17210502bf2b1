"""The texts of a pair compared word by word (decomposable attention, Parikh et al. 2016), before the first cell.

Comes in: word vectors of both texts. Goes out: for every position, what its word has in common with the words of the other text
that are most like it, and what not. Cells alone add up what stands at the same position of both texts, which says nothing of a
word that the other text has elsewhere: without this a student tells paraphrases by their topic (docs/LOG.md).
"""

import torch
from torch import Tensor, nn

SHARPNESS = 10.0  # to begin with: the same word weighs e^10 times as much as one that has nothing to do with it
OUT_OF_REACH = -1e4
LEAST_NORM = 1e-3  # a word of zeros has no direction, and must not have an endless gradient


class Alignment(nn.Module):
    """compare([|u - v|, relu(u * v)]) for each word u, with v the mean of the other text's words weighted by likeness to u."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.sharpness = nn.Parameter(torch.tensor(SHARPNESS))
        self.compare = nn.Linear(2 * channels, channels)

    def forward(self, words_a: Tensor, words_b: Tensor, mask_a: Tensor, mask_b: Tensor) -> tuple[Tensor, Tensor]:
        """Word vectors (B, L_a, C) and (B, L_b, C), masks (B, L) -> (B, L_a, C) and (B, L_b, C), anything at pads."""
        a, b = unit_rms(words_a, mask_a), unit_rms(words_b, mask_b)
        likeness = self.sharpness / a.shape[-1] * (a @ b.transpose(1, 2)).float()  # (B, L_a, L_b)
        return self._compared(a, b, likeness, mask_b), self._compared(b, a, likeness.transpose(1, 2), mask_a)

    def _compared(self, own: Tensor, others: Tensor, likeness: Tensor, mask: Tensor) -> Tensor:
        shares = torch.softmax(likeness.masked_fill(mask.unsqueeze(1) == 0, OUT_OF_REACH), dim=-1)
        aligned = shares @ others
        return self.compare(torch.cat([(own - aligned).abs(), torch.relu(own * aligned)], dim=-1))


def unit_rms(words: Tensor, mask: Tensor) -> Tensor:
    """Vectors (B, L, C) with a root mean square of 1, and zeros at pads."""
    scale = words.shape[-1] ** 0.5
    return nn.functional.normalize(words.float(), dim=-1, eps=LEAST_NORM) * scale * mask.unsqueeze(-1)
