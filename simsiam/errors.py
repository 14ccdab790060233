"""The one exception that a user's mistake raises."""


class UserError(Exception):
    """A mistake that the user can mend.

    The message names the file or flag, says what was found and what to do. The command line prints it
    without a traceback and exits with 2.
    """
