"""Mistakes that a user can mend, and what the system refuses. Whoever ends a process says the sentence and exits with code 2."""

import errno
import os


class UserError(Exception):
    """Says in one sentence what was wrong, where (file, row, key) and what to do."""


class RemoteError(UserError):
    """A place outside this machine could not be reached, refused, or gave back something damaged."""


_REFUSED = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR, errno.EBUSY, errno.EDQUOT}


def sentence_of(error: Exception) -> str:
    """The sentence for a user's mistake or for what the system refuses; '' for every other error, which is ours."""
    if isinstance(error, UserError):
        return str(error)
    if "No space left on device" in str(error) or "os error 28" in str(error):  # libraries that are not Python's hide the number
        return "the disk is full: free some space, and the same command goes on."
    if isinstance(error, OSError) and error.errno in _REFUSED and error.filename:
        return f"{error.filename}: {os.strerror(error.errno)}. Name another place, or give the right to it."
    return ""
