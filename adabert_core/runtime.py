"""Device, precision and randomness of a stage. Comes in: config words. Goes out: an Accelerator and seeded generators."""

import functools
import logging
import random
from collections.abc import Iterator
from contextlib import contextmanager

import joblib
import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState, PartialState

from adabert_core.errors import UserError
from adabert_core.memory import keep_freed_memory

log = logging.getLogger(__name__)


def has_bf16(device: str) -> bool:
    """True when the hardware computes bf16 itself (AVX512-BF16 or AMX on a CPU); emulation would be slower than fp32."""
    if device == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def make_accelerator(device: str, precision: str) -> Accelerator:
    """Returns an Accelerator for 'auto', 'cpu' or 'cuda' at 'auto', 'bf16' or 'fp32'.

    Raises:
        UserError: cuda is asked for and there is none.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("device: cuda was asked for, but torch sees no GPU; set device: auto or install a CUDA build of torch.")
    kind = device if device != "auto" else ("cuda" if torch.cuda.is_available() else "cpu")
    bf16 = precision == "bf16" or (precision == "auto" and has_bf16(kind))
    if kind == "cpu" and precision == "auto" and not bf16:
        _say_slow()
    if kind == "cpu":
        keep_freed_memory()
    torch.set_num_threads(min(torch.get_num_threads(), usable_cores()))
    for state in (AcceleratorState, GradientState, PartialState):  # one process runs stages of different settings in turn
        state._reset_state()
    return Accelerator(cpu=kind == "cpu", mixed_precision="bf16" if bf16 else "no")


def usable_cores() -> int:
    """How many cores this process may keep busy: a container's limit counts, of which torch knows nothing."""
    return int(joblib.cpu_count())


@functools.cache
def _say_slow() -> None:
    """Once per process: who waits should know why."""
    log.info("this CPU has no bf16 of its own: training runs in fp32 and takes several times longer")


@contextmanager
def frozen(accelerator: Accelerator) -> Iterator[None]:
    """Around a model's batches: no gradients, and its weights are cast for autocast once instead of for every batch.

    Each batch enters `accelerator.autocast()` as usual and finds the cast weights there: the cache lives as long as the outermost
    autocast does. What is computed beside it stays in fp32. (In `torch.inference_mode` nothing would be cached.)
    """
    with torch.no_grad(), accelerator.autocast(), torch.autocast(accelerator.device.type, enabled=False):
        yield


def seed_everything(seed: int) -> torch.Generator:
    """Seeds python, numpy and torch, and returns a CPU generator of its own for draws that must not depend on the device."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 - libraries below still draw from it
    torch.manual_seed(seed)
    return torch.Generator().manual_seed(seed + 1)


def parameter_count(model: torch.nn.Module) -> int:
    """Parameters of a torch model, shared ones once."""
    return sum(p.numel() for p in model.parameters())
