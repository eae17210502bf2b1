"""Where a teacher's files are: in a builtin's cache, in a folder, below an s3:// prefix, or on the hub under its id.

Comes in: `teacher.model`. Goes out: what `from_pretrained` takes, and a name of the content behind it.
"""

from pathlib import Path

from adabert_core.artifacts import digest_of, file_digest
from adabert_core.data.builtin import teacher_folder


def teacher_files(name: str, scratch: Path) -> str:
    """What `from_pretrained` takes: a builtin's folder, a copy of an s3:// folder in `scratch`, or the name as it is."""
    if name.startswith("builtin:"):
        return str(teacher_folder(name.removeprefix("builtin:")))
    if name.startswith("s3://"):
        from adabert_core.s3 import fetch  # here and below: boto3 takes its time, and most teachers come from elsewhere

        return str(fetch(name, scratch))
    return name


def teacher_content(name: str) -> str:
    """16 hex digits of the files in a folder or below an s3:// prefix; '' for the others, whose name says which they are.

    Only files right there count, and no hidden ones: nothing else is loaded.

    Raises:
        UserError: S3 does not answer.
    """
    if name.startswith("s3://"):
        from adabert_core.s3 import versions

        found = {key: version for key, version in versions(name).items() if _counts(key)}
    elif Path(name).is_dir():
        found = {path.name: file_digest(path) for path in Path(name).iterdir() if path.is_file() and _counts(path.name)}
    else:
        return ""
    return digest_of(found)[:16]


def _counts(key: str) -> bool:
    return "/" not in key and not key.startswith(".")
