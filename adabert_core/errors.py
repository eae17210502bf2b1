"""The one exception for mistakes a user can mend. The CLI prints its sentence and exits with code 2."""


class UserError(Exception):
    """Says in one sentence what was wrong, where (file, row, key) and what to do."""
