"""The one exception for mistakes a user can correct."""


class UserError(Exception):
    """A problem the user can solve.

    Its text is the whole message: one line that says what is wrong, where, and what to do. The
    command line prints it without a traceback and exits with status 2.
    """
