"""The exceptions for mistakes a user can mend. The CLI prints their sentence and exits with code 2."""

import errno
import os


class UserError(Exception):
    """Says in one sentence what was wrong, where (file, row, key) and what to do."""


class RemoteError(UserError):
    """A place outside this machine could not be reached, refused, or gave back something damaged."""


_REFUSED = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR, errno.EBUSY, errno.EDQUOT}


def system_said(error: Exception) -> str:
    """What the system refuses, as a sentence; '' for every other error. Libraries that are not Python's hide the number."""
    if "No space left on device" in str(error) or "os error 28" in str(error):
        return "the disk is full: free some space, and the same command goes on."
    if isinstance(error, OSError) and error.errno in _REFUSED and error.filename:
        return f"{error.filename}: {os.strerror(error.errno)}. Name another place, or give the right to it."
    return ""
