"""The only place that opens S3: objects in, objects out, and every failure as one sentence.

Comes in: s3://bucket/prefix and whatever credentials boto3's own chain finds (environment, profile, role of the pod). Goes
out: files whose digest was checked. A custom endpoint (AWS_ENDPOINT_URL_S3 or a profile's) is spoken to in path style.
"""

import contextlib
import errno
import functools
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adabert_core.artifacts import file_digest
from adabert_core.errors import RemoteError, UserError

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

log = logging.getLogger(__name__)
ATTEMPTS = 16  # with botocore's jittered backoff (from 50 ms to 20 s at most) 83 s on average without a server
FEW_ATTEMPTS = 4  # half a second: for a first look, where a wrong address is likelier than an outage
_PART_BYTES = 16 * 2**20
_DIGEST = "sha256"
_NAMES = re.compile(r"s3://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?:/(.*))?$")
_REFUSED = {
    "SignatureDoesNotMatch": "refused the secret key",
    "InvalidAccessKeyId": "does not know the access key",
    "ExpiredToken": "says that the session token has expired",
    "AccessDenied": "denies access with these credentials",
    "403": "denies access with these credentials",
    "NoSuchBucket": "has no such bucket; make it first",
    "NoSuchKey": "has no such object",
    "404": "has no such bucket or object",
}
_CONFLICTS = {"PreconditionFailed", "ConditionalRequestConflict", "412", "409"}


class ConflictError(Exception):
    """Another writer was there since the object was read."""


class S3Place:
    """The objects below one s3://bucket/prefix. Keys are relative to the prefix."""

    def __init__(self, uri: str, client: "S3Client") -> None:
        self.uri = uri.rstrip("/")
        self.bucket, self.prefix = split_uri(self.uri)
        self.client = client

    def probe(self) -> None:
        """Raises a `RemoteError` unless the bucket is there and answers these credentials."""
        with self._sentences():
            self.client.list_objects_v2(Bucket=self.bucket, Prefix=self.prefix, MaxKeys=1)

    def keys(self, below: str = "") -> dict[str, int]:
        """Key -> bytes of every object at or below a key (of the whole place by default)."""
        return {key: item["Size"] for key, item in self.objects(below).items()}

    def objects(self, below: str = "") -> dict[str, Any]:
        """Key -> what the server lists of every object at or below a key, page by page."""
        top = self._full(below)
        with self._sentences():
            pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=top)
            items = [item for page in pages for item in page.get("Contents", [])]
        return {
            item["Key"].removeprefix(self.prefix).lstrip("/"): item
            for item in items
            if not top or item["Key"] == top or item["Key"].startswith(f"{top}/")
        }

    def upload(self, path: Path, key: str) -> None:
        """Writes a file in parts of 16 MB with its sha256 beside it, and checks the size that arrived."""
        from boto3.s3.transfer import TransferConfig

        settings = TransferConfig(multipart_threshold=_PART_BYTES, multipart_chunksize=_PART_BYTES, max_concurrency=4)
        with self._sentences(key):
            extra = {"Metadata": {_DIGEST: file_digest(path)}}
            self.client.upload_file(str(path), self.bucket, self._full(key), ExtraArgs=extra, Config=settings)
            arrived = self.client.head_object(Bucket=self.bucket, Key=self._full(key))["ContentLength"]
        if arrived != path.stat().st_size:
            raise RemoteError(f"{self.uri}/{key} arrived with {arrived} of {path.stat().st_size} bytes; try again.")

    def download(self, key: str, path: Path) -> None:
        """Reads an object into a new file, and checks its size and, where the object carries one, its sha256."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with self._sentences(key):
            head = self.client.head_object(Bucket=self.bucket, Key=self._full(key))
            self.client.download_file(self.bucket, self._full(key), str(path))
        said = head.get("Metadata", {}).get(_DIGEST)
        if path.stat().st_size != head["ContentLength"] or (said and said != file_digest(path)):
            path.unlink()
            raise RemoteError(f"{self.uri}/{key} is damaged: its bytes are not those that were written; write it again.")

    def read(self, key: str) -> tuple[bytes, str] | None:
        """Returns a small object's bytes and its version tag, or None where there is none."""
        with self._sentences(key):
            try:
                answer = self.client.get_object(Bucket=self.bucket, Key=self._full(key))
            except self.client.exceptions.NoSuchKey:
                return None
            return answer["Body"].read(), answer["ETag"]

    def write(self, key: str, content: bytes, replaces: str | None) -> None:
        """Writes a small object if its version tag still is `replaces`, or if there is none where that is None.

        Raises:
            ConflictError: somebody else wrote it meanwhile.
        """
        condition: Any = {"IfNoneMatch": "*"} if replaces is None else {"IfMatch": replaces}
        with self._sentences(key):
            self.client.put_object(Bucket=self.bucket, Key=self._full(key), Body=content, **condition)

    def delete(self, keys: list[str]) -> None:
        """Removes objects; those that are gone already are no error."""
        with self._sentences():
            for first in range(0, len(keys), 1000):
                objects: Any = [{"Key": self._full(key)} for key in keys[first : first + 1000]]
                self.client.delete_objects(Bucket=self.bucket, Delete={"Objects": objects, "Quiet": True})

    def _full(self, key: str) -> str:
        return "/".join(part for part in (self.prefix, key) if part)

    def _sentences(self, key: str = "") -> contextlib.AbstractContextManager[None]:
        return one_sentence(f"{self.uri}/{key}" if key else self.uri, self.client.meta.endpoint_url)


def split_uri(uri: str) -> tuple[str, str]:
    """Returns bucket and prefix of s3://bucket/prefix.

    Raises:
        UserError: it is no such URI.
    """
    found = _NAMES.match(uri)
    if not found:
        raise UserError(f"{uri} is not of the form s3://bucket/prefix (buckets are 3 to 63 small letters, digits, dots, dashes).")
    return found[1], (found[2] or "").strip("/")


def open_place(uri: str, attempts: int = ATTEMPTS) -> S3Place:
    """Returns the place of a URI; nothing is sent yet. `attempts` bounds the tries of every request.

    Raises:
        UserError: not an s3:// URI, or settings that boto3 cannot use.
    """
    split_uri(uri)
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError

    retries: Any = {"mode": "standard", "total_max_attempts": attempts}
    bounds: dict[str, Any] = {"connect_timeout": 5, "read_timeout": 60, "retries": retries}
    try:
        session = _session()
        client = session.client("s3", config=Config(**bounds))
        if "amazonaws." not in client.meta.endpoint_url:
            plain: dict[str, Any] = {
                "s3": {"addressing_style": "path"},
                "request_checksum_calculation": "when_required",
                "response_checksum_validation": "when_required",
            }
            region = client.meta.region_name if session.region_name else "us-east-1"
            client = session.client("s3", config=Config(**bounds, **plain), region_name=region)
    except (BotoCoreError, ValueError) as error:
        raise UserError(f"{uri}: the S3 settings cannot be used ({_line(error)}).") from error
    return S3Place(uri, client)


def _session() -> Any:
    """A session with the settings of now; boto3's descriptions of S3, a quarter of a second of JSON, are read once a process."""
    import boto3
    from botocore.session import get_session

    core = get_session()
    core.register_component("data_loader", _descriptions())
    return boto3.Session(botocore_session=core)


@functools.cache
def _descriptions() -> Any:
    from botocore.loaders import create_loader

    return create_loader()


def fetch(uri: str, folder: Path) -> Path:
    """Downloads the object or all objects below a URI into a folder, and returns the file or the folder.

    Raises:
        UserError: there is nothing, or it cannot be read whole.
    """
    open_place(uri, FEW_ATTEMPTS).probe()
    place = open_place(uri)
    found = place.keys()
    if not found:
        raise UserError(f"{uri}: there is no object of that name and none below it; check the bucket and the prefix.")
    if "" in found:
        target = folder / Path(place.prefix).name
        place.download("", target)
        return target
    for key in found:
        if not key.endswith("/"):
            place.download(key, folder / key)
    return folder


def versions(uri: str) -> dict[str, str]:
    """Key -> size and ETag of every object at or below a URI: nothing is downloaded.

    Raises:
        UserError: the place does not answer.
    """
    open_place(uri, FEW_ATTEMPTS).probe()
    return {key: f"{item['Size']} {item['ETag']}" for key, item in open_place(uri).objects().items()}


def push(folder: Path, uri: str, last: str = "") -> None:
    """Uploads a folder's files; the one named `last` goes last, so that a reader who finds it finds all."""
    place = open_place(uri)
    files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    for key in sorted(files, key=lambda key: key == last):
        place.upload(folder / key, key)


@contextlib.contextmanager
def one_sentence(what: str, endpoint: str) -> Iterator[None]:
    """Turns what boto3 raises inside the block into a `RemoteError` (or `ConflictError`); no key or secret is repeated."""
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, PartialCredentialsError

    try:
        yield
    except ClientError as error:
        code = str(error.response.get("Error", {}).get("Code", "unknown"))
        if code in _CONFLICTS:
            raise ConflictError(what) from None
        raise RemoteError(f"{what}: {endpoint} {_REFUSED.get(code, f'answers {code}')}.") from error
    except (NoCredentialsError, PartialCredentialsError) as error:
        cure = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE, or give the pod a role"
        raise RemoteError(f"{what}: no S3 credentials were found; {cure}.") from error
    except Boto3Error as error:  # a transfer's failure wraps the one that says why
        cause = error.__context__ or error.__cause__
        if isinstance(cause, ClientError):
            with one_sentence(what, endpoint):
                raise cause from error
        raise RemoteError(f"{what}: {endpoint} could not be reached ({_line(error)}).") from error
    except BotoCoreError as error:
        raise RemoteError(f"{what}: {endpoint} could not be reached ({_line(error)}).") from error
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise RemoteError(f"{what}: the local disk is full; free some space and try again.") from error
        raise


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200].rstrip(".")
