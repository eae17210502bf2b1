import subprocess
import sys

import pytest
import torch

from adabert_core.errors import UserError
from adabert_core.storage import Checkpoints, FolderStore, open_store


@pytest.fixture
def checkpoints(tmp_path):
    return Checkpoints(open_store(str(tmp_path / "store"), "run"))


def test_state_comes_back_as_it_was(checkpoints):
    assert checkpoints.load("search/state") is None
    checkpoints.save("search/state", {"step": 3, "weights": {"a": torch.arange(4.0)}})
    loaded = checkpoints.load("search/state")
    assert loaded["step"] == 3
    assert loaded["weights"]["a"].tolist() == [0.0, 1.0, 2.0, 3.0]


def test_later_state_replaces_the_earlier_and_leaves_no_rest(checkpoints, tmp_path):
    for step in (1, 2, 3):
        checkpoints.save("search/state", {"step": step})
    assert checkpoints.load("search/state") == {"step": 3}
    assert sorted(path.name for path in (tmp_path / "store" / "search").iterdir()) == ["state"]


@pytest.mark.parametrize("damage", ["flip", "cut", "seal", "no_seal", "no_state"])
def test_damaged_state_is_not_taken(checkpoints, tmp_path, damage, caplog):
    checkpoints.save("search/state", {"step": 3, "a": torch.arange(100)})
    state, seal = (tmp_path / "store" / "search" / "state" / name for name in ("state.pt", "seal.json"))
    content = bytearray(state.read_bytes())
    if damage == "flip":
        content[len(content) // 2] ^= 1
        state.write_bytes(content)
    elif damage == "cut":
        state.write_bytes(content[:-10])
    elif damage == "seal":
        seal.write_text("not json")
    else:
        (seal if damage == "no_seal" else state).unlink()
    assert checkpoints.load("search/state") is None
    assert "search/state is damaged" in caplog.text


def test_failed_write_keeps_the_earlier_state(tmp_path):
    store = FolderStore(tmp_path / "store")

    def failing(folder):
        (folder / "half").write_text("half")
        raise OSError(28, "No space left on device")

    store.put("key", lambda folder: (folder / "whole").write_text("whole"))
    with pytest.raises(OSError, match="No space"):
        store.put("key", failing)
    assert [path.name for path in store.get("key").iterdir()] == ["whole"]
    assert [path.name for path in (tmp_path / "store").iterdir()] == ["key"]


# A limit on the size of files is met as a full disk is: in the middle of a write.
FULL = """
import logging, pathlib, resource, signal, sys
import torch
from adabert_core.s3_store import S3Store
from adabert_core.storage import Checkpoints, FolderStore

logging.basicConfig(stream=sys.stdout)
folder = Checkpoints(FolderStore(pathlib.Path(sys.argv[1])))
folder.save("teacher", {"step": 1})
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
for checkpoints in (folder, Checkpoints(S3Store(None, "run"))):
    checkpoints.save("teacher", {"step": 2, "weights": torch.arange(400_000.0)})
print("step", folder.load("teacher"))
"""


@pytest.mark.parametrize("room", [0, 100_000, 1_600_500], ids=["at once", "in a tensor", "at the end"])
def test_full_disk_costs_the_checkpoint_and_not_the_run(tmp_path, room):
    command = [sys.executable, "-c", FULL, str(tmp_path / "store"), str(room)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)  # noqa: S603
    assert done.stdout.count("checkpoint teacher was not written ([Errno 27] File too large); the run goes on") == 2
    assert done.stdout.endswith("step {'step': 1}\n")


def test_state_that_cannot_be_saved_for_another_reason_is_no_full_disk(checkpoints):
    class Broken:
        def __reduce__(self):
            raise RuntimeError("a mistake of ours")

    with pytest.raises(RuntimeError, match="a mistake of ours"):
        checkpoints.save("teacher", {"step": 1, "weights": Broken()})


def test_clear_forgets_everything_below_a_key_and_nothing_else(checkpoints, tmp_path):
    for key in ("search/1/state", "search/1/costs", "search/2/state"):
        checkpoints.save(key, {"step": 1})
    checkpoints.clear("search/1")
    assert checkpoints.load("search/1/state") is None
    assert checkpoints.load("search/1/costs") is None
    assert checkpoints.load("search/2/state") == {"step": 1}
    checkpoints.clear("search/2")
    assert not (tmp_path / "store" / "search").exists()
    checkpoints.clear("never/there")


def test_due_after_the_given_seconds():
    now = [0.0]
    store = SlowStore()
    checkpoints = Checkpoints(store, every_seconds=30, clock=lambda: now[0])
    due = []
    for now[0] in (0.0, 29.9, 30.0):
        due.append(checkpoints.due())
    checkpoints.save("k", {})
    for now[0] in (59.0, 60.0):
        due.append(checkpoints.due())
    assert due == [False, False, True, False, True]


class SlowStore:
    """Takes everything and is done with it when told so."""

    uploading = False

    def put(self, key, files, step):
        self.step = step

    def busy(self):
        return self.uploading


def test_nothing_is_due_while_the_last_one_is_on_its_way():
    now = [100.0]
    store = SlowStore()
    checkpoints = Checkpoints(store, every_seconds=30, clock=lambda: now[0])
    checkpoints.save("k", {"step": 7})
    now[0], store.uploading = 200.0, True
    assert not checkpoints.due()
    store.uploading = False
    assert checkpoints.due()
    assert store.step == 7


def test_without_a_store_nothing_is_kept_and_nothing_is_due():
    checkpoints = Checkpoints(None, every_seconds=0)
    checkpoints.save("k", {"step": 1})
    assert checkpoints.load("k") is None
    assert not checkpoints.due()
    checkpoints.clear("k")


@pytest.mark.parametrize("uri", ["gs://bucket/prefix", "ftp://host/x"])
def test_unknown_scheme_is_refused(uri):
    with pytest.raises(UserError, match=f"checkpoint_uri {uri}"):
        open_store(uri, "run")


def test_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        open_store(str(tmp_path / "file" / "store"), "run")
