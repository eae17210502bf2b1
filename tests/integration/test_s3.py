"""The door to S3 against a real server: whole transfers, refusals in one sentence, checkpoints of many writers."""

import json
import shutil
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from adabert_core import s3
from adabert_core.artifact_store import at_hand, put_away
from adabert_core.artifacts import read_manifest
from adabert_core.data.sources import read_source, read_unlabeled
from adabert_core.doctor import s3_findings
from adabert_core.errors import RemoteError, UserError
from adabert_core.s3 import ConflictError, S3Place, fetch, open_place, push
from adabert_core.s3_store import S3Store
from adabert_core.storage import Checkpoints, open_store
from adabert_core.teacher_source import teacher_content
from tests.conftest import replace_weights, sentences

pytestmark = pytest.mark.usefixtures("stack_environment")


@pytest.fixture
def uri() -> str:
    return f"s3://adabert-checkpoints/{uuid.uuid4().hex}"


@pytest.fixture
def place(uri: str, stack_environment: dict[str, str]) -> S3Place:
    return open_place(uri)


def checkpoints(uri: str, writer: str) -> Checkpoints:
    return Checkpoints(open_store(uri, writer), every_seconds=0)


def store_of(part: Checkpoints) -> S3Store:
    assert isinstance(part.store, S3Store)
    return part.store


@pytest.fixture
def corrupt(place: S3Place) -> Iterator:
    """Replaces the one object whose key ends so by other bytes, as a store that lost a block would."""

    def change(ending: str, content: bytes) -> None:
        (key,) = [key for key in place.keys() if key.endswith(ending)]
        place.client.put_object(Bucket=place.bucket, Key=f"{place.prefix}/{key}", Body=content)

    return change


@pytest.mark.parametrize("size", [0, 1, 5 * 2**20, 40 * 2**20], ids=["empty", "byte", "one part", "three parts"])
def test_file_comes_back_as_it_was(place: S3Place, tmp_path: Path, size: int) -> None:
    sent, got = tmp_path / "sent", tmp_path / "below" / "got"
    sent.write_bytes(bytes(torch.randint(0, 256, (size,), dtype=torch.uint8).numpy()))
    place.upload(sent, "a/file")
    place.download("a/file", got)
    assert got.read_bytes() == sent.read_bytes()
    assert place.keys() == {"a/file": size}


def test_listing_goes_through_all_pages_and_stops_at_the_prefix(place: S3Place) -> None:
    for i in range(1005):
        place.client.put_object(Bucket=place.bucket, Key=f"{place.prefix}/many/{i:04d}", Body=b"")
    place.client.put_object(Bucket=place.bucket, Key=f"{place.prefix}/manyfold", Body=b"")
    assert len(place.keys("many")) == 1005
    place.delete(list(place.keys("many")))
    assert place.keys() == {"manyfold": 0}


def test_object_that_changed_on_the_way_is_refused(place: S3Place, tmp_path: Path, corrupt) -> None:
    (tmp_path / "sent").write_bytes(b"a" * 1000)
    place.upload(tmp_path / "sent", "file")
    answer = place.client.head_object(Bucket=place.bucket, Key=f"{place.prefix}/file")
    place.client.put_object(Bucket=place.bucket, Key=f"{place.prefix}/file", Body=b"a" * 900, Metadata=answer["Metadata"])
    with pytest.raises(RemoteError, match="is damaged"):
        place.download("file", tmp_path / "got")
    assert not (tmp_path / "got").exists()


def test_conditional_write_lets_one_of_many_win(uri: str) -> None:
    won = []

    def write(i: int) -> None:
        try:
            open_place(uri).write("seal", str(i).encode(), None)
            won.append(i)
        except ConflictError:
            pass

    threads = [threading.Thread(target=write, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = open_place(uri).read("seal")
    assert found is not None
    assert [str(i).encode() for i in won] == [found[0]]
    with pytest.raises(ConflictError):
        open_place(uri).write("seal", b"late", '"another tag"')


@pytest.mark.parametrize(
    ("change", "bucket", "sentence"),
    [
        ({"AWS_SECRET_ACCESS_KEY": "wrong"}, "adabert-exports", "refused the secret key"),
        ({"AWS_ACCESS_KEY_ID": "nobody"}, "adabert-exports", "does not know the access key"),
        ({"AWS_ACCESS_KEY_ID": None, "AWS_SECRET_ACCESS_KEY": None}, "adabert-exports", "no S3 credentials were found"),
        ({}, "no-such-bucket", "has no such bucket; make it first"),
        ({"AWS_ENDPOINT_URL_S3": "http://127.0.0.1:9"}, "adabert-exports", "could not be reached"),
        ({"AWS_ENDPOINT_URL_S3": "nonsense"}, "adabert-exports", "the S3 settings cannot be used"),
    ],
)
def test_place_that_cannot_be_used_is_one_sentence_without_secrets(
    change: dict[str, str | None],
    bucket: str,
    sentence: str,
    stack_environment: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    for name, value in change.items():
        monkeypatch.delenv(name) if value is None else monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=sentence) as raised:
        open_place(f"s3://{bucket}/x", attempts=2).probe()
    assert "\n" not in str(raised.value)
    assert stack_environment["AWS_SECRET_ACCESS_KEY"] not in str(raised.value)


def test_full_disk_is_one_sentence(place: S3Place, tmp_path: Path) -> None:
    (tmp_path / "sent").write_bytes(b"a" * 100)
    place.upload(tmp_path / "sent", "file")
    with pytest.raises(RemoteError, match="the local disk is full"), s3.one_sentence("x", "y"):
        Path("/dev/full").write_bytes(b"a")


def test_rows_are_read_from_an_object_and_from_a_prefix(uri: str, tmp_path: Path) -> None:
    for split, seed in (("train", 1), ("test", 2)):
        lines = [json.dumps({"text": text, "label": label}) for text, label in sentences(40, seed)]
        (tmp_path / f"{split}.jsonl").write_text("\n".join(lines) + "\n")
    push(tmp_path, uri, last="train.jsonl")
    assert {name: len(table.frame) for name, table in read_source(uri, "label").items()} == {"train": 40, "test": 40}
    table = read_source(f"{uri}/test.jsonl", "label")["train"]
    assert table.place(2) == f"{uri}/test.jsonl, line 3"
    assert [table.name for table in read_unlabeled(uri, ["text"]).values()] == [f"{uri}/test.jsonl", f"{uri}/train.jsonl"]
    with pytest.raises(UserError, match=f"^{uri}/none.csv: there is no object of that name"):
        read_source(f"{uri}/none.csv", "label")


def test_teacher_below_a_prefix_is_known_by_its_listing(place: S3Place, uri: str, bert_folder: Path, tmp_path: Path) -> None:
    push(bert_folder, uri)
    content = teacher_content(uri)
    assert len(content) == 16
    push(bert_folder, uri)  # the same bytes, written again
    place.write("onnx/model.onnx", b"not loaded", None)
    assert teacher_content(uri) == content
    shutil.copytree(bert_folder, tmp_path / "teacher")
    replace_weights(tmp_path / "teacher")
    push(tmp_path / "teacher", uri)
    assert teacher_content(uri) != content


def test_broken_line_of_an_object_is_named_by_its_uri(place: S3Place, uri: str) -> None:
    place.write("rows.csv", b'text,label\n"open,a\n', None)
    with pytest.raises(UserError, match=f"^{uri}/rows.csv, line 2"):
        read_source(f"{uri}/rows.csv", "label")


def test_checkpoint_comes_back_and_is_forgotten(place: S3Place, uri: str) -> None:
    own = checkpoints(uri, "run-1")
    assert own.load("search/state") is None
    own.save("search/state", {"step": 3, "weights": torch.arange(5.0)})
    found = checkpoints(uri, "run-1").load("search/state") if own.load("search/state") else None
    assert found is not None
    assert torch.equal(found["weights"], torch.arange(5.0))
    own.save("search/state", {"step": 4, "weights": torch.arange(5.0)})
    assert own.load("search/state") == {"step": 4, "weights": pytest.approx(torch.arange(5.0))}
    assert sum(key.endswith("state.pt") for key in place.keys()) == 1  # noqa: SIM118 - keys is no mapping's
    own.clear("search")
    assert place.keys() == {}


def test_two_runs_under_one_prefix_take_the_furthest_and_remove_only_their_own(uri: str) -> None:
    first, second = checkpoints(uri, "run-1"), checkpoints(uri, "run-2")
    first.save("search/state", {"step": 5})
    second.save("search/state", {"step": 9})
    second.load("search/state")
    assert first.load("search/state") == {"step": 9}
    second.clear("search")
    assert first.load("search/state") == {"step": 5}


def test_old_process_of_a_run_does_not_overwrite_what_its_retry_wrote(uri: str) -> None:
    old, retry = checkpoints(uri, "run"), checkpoints(uri, "run")
    retry.save("search/state", {"step": 9})
    retry.load("search/state")
    old.save("search/state", {"step": 4})
    assert old.load("search/state") == {"step": 9}


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 torn"], ids=["truncated to nothing", "torn"])
def test_damaged_checkpoint_is_never_taken_for_whole(uri: str, corrupt, content: bytes) -> None:
    first, second = checkpoints(uri, "run-1"), checkpoints(uri, "run-2")
    second.save("search/state", {"step": 2})
    second.load("search/state")
    first.save("search/state", {"step": 8})
    first.load("search/state")
    folder = next(key for key in open_place(uri).keys() if "@run-1" in key and key.endswith("state.pt"))  # noqa: SIM118
    corrupt(folder.split("/", 2)[2], content)
    assert first.load("search/state") == {"step": 2}
    second.clear("search")
    assert first.load("search/state") is None
    first.save("search/state", {"step": 1})  # starting over must not be held back by the damaged one's step
    assert first.load("search/state") == {"step": 1}


def test_missing_part_of_a_checkpoint_is_no_checkpoint(place: S3Place, uri: str) -> None:
    own = checkpoints(uri, "run")
    own.save("search/state", {"step": 8})
    own.load("search/state")
    place.delete([key for key in place.keys() if key.endswith("state.pt")])  # noqa: SIM118
    assert own.load("search/state") is None


def test_training_does_not_wait_for_an_upload(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    own, release = checkpoints(uri, "run"), threading.Event()
    upload = S3Place.upload

    def slow(self, path, key):
        release.wait(30)
        upload(self, path, key)

    monkeypatch.setattr(S3Place, "upload", slow)
    own.save("search/state", {"step": 1})
    assert store_of(own).busy()
    assert not own.due()
    release.set()
    assert own.load("search/state") == {"step": 1}
    assert not store_of(own).busy()


def test_stage_directory_travels_whole(uri: str, tmp_path: Path, corrupt, learnable_csv: Path) -> None:
    from adabert_core.config_file import parse_section
    from adabert_core.stages import run_stage
    from adabert_core.tracking import Tracker

    folder = tmp_path / "prepared"
    config = parse_section("data", {"source": str(learnable_csv)})
    run_stage("prepare_data", config, {}, folder, tracker=Tracker(""), checkpoints=Checkpoints(None))
    before = read_manifest(folder, "prepare_data")
    stored = put_away(folder, uri)
    assert sorted(path.name for path in folder.iterdir()) == ["manifest.json", "stored_at.txt"]
    copy = at_hand(folder, tmp_path / "scratch")
    assert read_manifest(copy, "prepare_data").digest == before.digest
    assert (copy / "train.parquet").stat().st_size > 0
    corrupt("train.parquet", b"short")
    with pytest.raises(RemoteError, match=f"{stored}/train.parquet is missing or damaged"):
        at_hand(folder, tmp_path / "other")


def test_pushed_folder_is_fetched_whole(uri: str, tmp_path: Path) -> None:
    (tmp_path / "model" / "deep").mkdir(parents=True)
    (tmp_path / "model" / "MLmodel").write_text("flavour")
    (tmp_path / "model" / "deep" / "weights").write_bytes(b"1" * 1000)
    push(tmp_path / "model", uri, last="MLmodel")
    got = fetch(uri, tmp_path / "got")
    assert (got / "deep" / "weights").read_bytes() == b"1" * 1000
    assert (got / "MLmodel").read_text() == "flavour"


def test_doctor_says_what_works_and_where_it_stops(uri: str) -> None:
    assert [(finding.name, finding.ok) for finding in s3_findings(uri)] == [
        ("s3", True),
        ("s3 bucket", True),
        ("s3 write", True),
        ("s3 condition", True),
        ("s3 delete", True),
    ]
    command = [sys.executable, "-m", "adabert_core.cli", "doctor", "--s3", "s3://no-such-bucket/x"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stdout.splitlines()[-1].startswith("FAIL  s3 bucket: s3://no-such-bucket/x:")
