"""One stage on several processes: one per GPU (NCCL), or on CPU cores where a number is asked for (Gloo).

Comes in: a stage's call. Goes out: the same directory that one process writes. All processes compute the same model on
their share of each batch; only the first one writes, tracks and checkpoints.
"""

import ctypes
import dataclasses
import logging
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from adabert_core.errors import UserError, sentence_of
from adabert_core.imports import imported
from adabert_core.runtime import usable_cores
from adabert_core.storage import Checkpoints, open_store
from adabert_core.tracking import Tracker

log = logging.getLogger(__name__)
Items = TypeVar("Items", np.ndarray, list[Any])
Found = TypeVar("Found")
_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG


@dataclasses.dataclass(frozen=True)
class Job:
    """A stage's call in plain values, as another process can take it."""

    module: str
    config: Any
    inputs: dict[str, Path]
    output: Path
    tracking: tuple[str, str, str, str]
    store: tuple[str, str] | None
    every_seconds: float


def rank_and_size() -> tuple[int, int]:
    """This process's number and how many there are; (0, 1) outside of a parallel stage."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


def wanted_processes(config: Any) -> int:
    """How many processes a stage's config asks for: 0 means one per visible GPU, or one where there is none.

    Raises:
        UserError: more than there are GPUs or, where it computes on the CPU, cores.
    """
    asked = int(getattr(config, "processes", 1))
    gpus = 0 if getattr(config, "device", "cpu") == "cpu" else torch.cuda.device_count()
    if asked > (most := gpus or os.cpu_count() or 1):
        kind = "GPUs" if gpus else "CPU cores"
        raise UserError(f"processes: {asked} are more than the {most} {kind} of this machine; 0 means one per GPU.")
    return asked or max(gpus, 1)


def share(items: Items) -> Items:
    """This process's part of a sequence; all parts together are the sequence. Too few items go to everybody."""
    rank, size = rank_and_size()
    return items[rank::size] if len(items) >= size else items


def gathered(found: Tensor, items: list[Any], device: torch.device) -> Tensor:
    """Sums what the processes filled in for their shares of `items`; the rest of each `found` is zero."""
    _, size = rank_and_size()
    if size == 1 or len(items) < size:
        return found
    there = found.to(device)
    dist.all_reduce(there)
    return there.to(found.device)


def agreed(number: int, device: torch.device) -> bool:
    """True when all processes of the stage call with the same number."""
    _, size = rank_and_size()
    if size == 1:
        return True
    bounds = torch.tensor([number, -number], device=device)
    dist.all_reduce(bounds, dist.ReduceOp.MAX)
    return bool(bounds[0] == -bounds[1])


def measured_once(measure: Callable[[], Found]) -> Found:
    """What the first process measures, for all of them: times differ, and what is decided by them must not."""
    rank, size = rank_and_size()
    if size == 1:
        return measure()
    found = [measure() if rank == 0 else None]
    dist.broadcast_object_list(found, src=0, device=torch.device("cpu"))
    return found[0]  # type: ignore[return-value]


def synchronise(optimizers: Iterable[torch.optim.Optimizer], modules: Iterable[nn.Module]) -> None:
    """Averages gradients and floating-point buffers (BatchNorm's running statistics) over the processes, in one message."""
    _, size = rank_and_size()
    if size == 1:
        return
    parameters = [p for optimizer in optimizers for group in optimizer.param_groups for p in group["params"]]
    tensors = [p.grad for p in parameters if p.grad is not None]
    tensors += [b for module in modules for b in module.buffers() if b.is_floating_point()]
    flat = torch._utils._flatten_dense_tensors(tensors)
    dist.all_reduce(flat)
    for tensor, mean in zip(tensors, torch._utils._unflatten_dense_tensors(flat / size, tensors), strict=True):
        tensor.copy_(mean)


def run_on_many(
    count: int,
    module: str,
    config: Any,
    inputs: dict[str, Path],
    output: Path,
    *,
    tracker: Tracker,
    checkpoints: Checkpoints,
) -> None:
    """Runs a stage module on `count` processes of this machine through torch's elastic launcher.

    Raises:
        UserError: what the stage said.
        torch.distributed.elastic.multiprocessing.errors.ChildFailedError: a process failed otherwise.
    """
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    log.info("%s: on %d processes", module.rpartition(".")[2], count)
    with tempfile.TemporaryDirectory(prefix="adabert-parallel-") as scratch:
        sentence = Path(scratch) / "sentence"
        launch = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=count,
            rdzv_backend="c10d",
            rdzv_endpoint=f"127.0.0.1:{_free_port()}",
            max_restarts=0,
            start_method="spawn",
        )
        try:
            elastic_launch(launch, _child)(_job(module, config, inputs, output, tracker, checkpoints), sentence)
        except ChildFailedError as error:
            if sentence.is_file():
                raise UserError(sentence.read_text(encoding="utf-8")) from error
            raise


def run_as_one_of_many(
    module: str, config: Any, inputs: dict[str, Path], output: Path, *, tracker: Tracker, checkpoints: Checkpoints
) -> None:
    """Runs a stage module as the process that torchrun's variables say; the first of all leaves the directory on its node."""
    _work(_job(module, config, inputs, output, tracker, checkpoints))


def _job(module: str, config: Any, inputs: dict[str, Path], output: Path, tracker: Tracker, checkpoints: Checkpoints) -> Job:
    tracking = (tracker.uri, tracker.experiment, tracker.pipeline_run, tracker.run_name)
    store = checkpoints.store.address() if checkpoints.store else None
    return Job(module, config, inputs, output, tracking, store, checkpoints.every_seconds)


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def _child(job: Job, sentence: Path) -> None:
    """What a process that `run_on_many` started does: it ends with its parent, and leaves a user's mistake as a sentence."""
    from adabert_core.entry import show_log

    die_with_parent()
    show_log(sys.stderr)
    try:
        _work(job)
    except Exception as error:
        if said := sentence_of(error):
            sentence.write_text(said, encoding="utf-8")
        raise


def die_with_parent() -> None:
    """Has the kernel end this process when the one that started it ends, however that came about."""
    ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)


def backends(on_gpu: bool) -> str:
    """What carries messages: NCCL takes tensors on a GPU only, and an exported student, say, answers on the CPU."""
    return "cpu:gloo,cuda:nccl" if on_gpu else "gloo"


def _work(job: Job) -> None:
    """One process of a parallel stage; all but the first write into a folder that goes away."""
    rank, here = int(os.environ["RANK"]), int(os.environ["LOCAL_WORLD_SIZE"])
    on_gpu = job.config.device != "cpu" and torch.cuda.is_available()
    if on_gpu:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    else:
        torch.set_num_threads(max(usable_cores() // here, 1))
    dist.init_process_group(backends(on_gpu))
    if rank:
        logging.disable(logging.INFO)
        os.environ["TQDM_DISABLE"] = "1"
    checkpoints = Checkpoints(open_store(*job.store) if job.store else None, job.every_seconds, reads_only=rank > 0)
    tracker = Tracker(*job.tracking) if rank == 0 else Tracker("")
    with tempfile.TemporaryDirectory(prefix="adabert-rank-") as scratch:
        output = job.output if rank == 0 else Path(scratch) / "output"
        imported(job.module).run(job.config, job.inputs, output, tracker=tracker, checkpoints=checkpoints)
        dist.barrier()
    dist.destroy_process_group()
