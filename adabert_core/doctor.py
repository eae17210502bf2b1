"""What this machine offers, finding by finding. Nothing is changed but a file tried in the checkpoint folder and removed."""

import contextlib
import dataclasses
import os
import platform
import shutil
import sys
import uuid
from collections.abc import Callable
from pathlib import Path

from adabert_core.errors import UserError


@dataclasses.dataclass(frozen=True)
class Finding:
    """One line of the doctor: `needed` ones must be ok for a run to work."""

    name: str
    ok: bool
    said: str
    needed: bool = True


def examine(tracking_uri: str, checkpoint_uri: str, s3_uri: str = "") -> list[Finding]:
    """Returns the findings, cheap ones first."""
    return [
        Finding("python", sys.version_info >= (3, 11), f"{platform.python_version()} (3.11 or later is needed)"),
        _memory(),
        *_torch(),
        _tried("onnxruntime", _onnxruntime),
        _tried("builtin data", _cache, needed=False),
        _tried("checkpoints", lambda: _store(checkpoint_uri)),
        _tried("tracking", lambda: _mlflow(tracking_uri), needed=False),
        *([_s3()] if not s3_uri else s3_findings(s3_uri)),
    ]


def _tried(name: str, check: Callable[[], str], needed: bool = True) -> Finding:
    try:
        return Finding(name, True, check(), needed)
    except Exception as error:  # noqa: BLE001 - whatever is wrong is what the doctor is asked for
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        return Finding(name, False, reason[:200], needed)


def _memory() -> Finding:
    with contextlib.suppress(OSError, ValueError):
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
        free = shutil.disk_usage(Path.cwd()).free / 1e9
        said = f"{total:.0f} GB memory (the presets for one machine need 4), {free:.0f} GB disk free here"
        return Finding("memory", total >= 4, said, needed=False)
    return Finding("memory", False, "cannot be read on this system", needed=False)


def _torch() -> list[Finding]:
    try:
        import torch

        from adabert_core.runtime import has_bf16
    except ImportError as error:
        return [Finding("torch", False, f"cannot be imported ({error}): pip install -c constraints.txt '.[train]'")]
    cpu, gpu = has_bf16("cpu"), torch.cuda.is_available()
    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] if gpu else []
    return [
        Finding("torch", True, f"{torch.__version__}, {torch.get_num_threads()} threads on {os.cpu_count()} cores"),
        Finding("bf16", cpu, "in hardware, training uses it" if cpu else "not in this CPU, training uses fp32", needed=False),
        Finding("gpu", gpu, ", ".join(names) if gpu else "none, training runs on the CPU", needed=False),
    ]


def _onnxruntime() -> str:
    import onnxruntime

    return f"{onnxruntime.__version__}, {', '.join(onnxruntime.get_available_providers())}"


def _cache() -> str:
    from adabert_core.data.builtin import cache_root

    return f"cached under {cache_root()}" if cache_root().exists() else f"will be fetched with pip into {cache_root()}"


def _store(uri: str) -> str:
    from adabert_core.storage import open_store

    key = f"doctor-{uuid.uuid4().hex}"
    store = open_store(uri, key)
    store.put(key, _trial)
    if store.get(key) is None:
        raise UserError(f"{uri} does not give back what was put there.")
    store.delete(key)
    return f"{uri} can be written"


def _trial(folder: Path) -> None:
    (folder / "trial").write_bytes(b"trial")


def _mlflow(uri: str) -> str:
    if not uri:
        return "off"
    if uri.startswith("sqlite:///"):
        path = Path(uri.removeprefix("sqlite:///")).absolute()
        if path.exists():
            with path.open("rb") as file:
                if file.read(6) not in (b"", b"SQLite"):
                    raise UserError(f"{path} is there and is no SQLite database.")
            return f"{path} is there"
        folder = next(parent for parent in path.parents if parent.exists())
        if not os.access(folder, os.W_OK):
            raise UserError(f"{path} cannot be made: {folder} cannot be written.")
        return f"{path} will be made on first use"
    from urllib.request import urlopen

    from adabert_core.tracking import without_password

    with urlopen(f"{uri.rstrip('/')}/health", timeout=5) as answer:  # noqa: S310 - the user's own tracking server
        return f"{without_password(uri)} answers {answer.status}"


def s3_findings(uri: str) -> list[Finding]:
    """Returns what works at an s3:// place, step by step, up to the first step that fails."""
    from adabert_core.s3 import ConflictError, open_place

    place = open_place(uri, attempts=2)
    key = f"doctor-{uuid.uuid4().hex}"

    def listed() -> str:
        place.probe()
        return f"{place.bucket} is there and lists, at {place.client.meta.endpoint_url}"

    def kept() -> str:
        place.write(key, b"trial", None)
        found = place.read(key)
        if found is None or found[0] != b"trial":
            raise UserError(f"{uri} does not give back what was put there.")
        return "an object can be written and read back"

    def guarded() -> str:
        try:
            place.write(key, b"other", None)
        except ConflictError:
            return "a conditional put is refused when the object is there, as checkpoints need it"
        raise UserError(f"{uri} ignores If-None-Match: two processes of one run could overwrite each other's checkpoints.")

    def removed() -> str:
        place.delete([key])
        return "and it can be removed"

    findings = [_s3()]
    for name, check in {"s3 bucket": listed, "s3 write": kept, "s3 condition": guarded, "s3 delete": removed}.items():
        findings.append(_tried(name, check))
        if not findings[-1].ok:
            break
    return findings


def _s3() -> Finding:
    try:
        import boto3

        found = boto3.Session().get_credentials()
    except ImportError:
        return Finding("s3", False, "boto3 is not installed", needed=False)
    said = f"credentials from {found.method}" if found else "no credentials; only needed for s3:// places"
    return Finding("s3", found is not None, said, needed=False)
