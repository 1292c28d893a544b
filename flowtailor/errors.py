"""The one kind of error that is shown to people without a traceback."""


class FlowtailorError(Exception):
    """A user's mistake or a broken world, told in one line: the value, the rule, the remedy.

    The command line prints it and exits with 2. Anything else that escapes is a programming
    error and keeps its traceback.
    """
