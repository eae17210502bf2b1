"""The exceptions for mistakes a user can mend. The CLI prints their sentence and exits with code 2."""


class UserError(Exception):
    """Says in one sentence what was wrong, where (file, row, key) and what to do."""


class RemoteError(UserError):
    """A place outside this machine could not be reached, refused, or gave back something damaged."""
