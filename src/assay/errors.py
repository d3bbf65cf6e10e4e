"""The two kinds of failure a user sees, each ending in one sentence and an exit code."""


class AssayError(Exception):
    """Something went wrong on our side, or in a service we depend on; exit code 1."""

    exit_code = 1


class UserError(AssayError):
    """The input is at fault; exit code 2.

    The message is one line that names what was wrong (file, row or key), what was expected, and what to do.

    Example:
        >>> raise UserError("data/cat.png is truncated: replace the file or remove it and import again.")
        Traceback (most recent call last):
        ...
        assay.errors.UserError: data/cat.png is truncated: replace the file or remove it and import again.
    """

    exit_code = 2
