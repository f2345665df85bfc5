"""The one error that is meant for people."""


class UserError(ValueError):
    """Something a user gave is wrong; the message names it, the values and the way out.

    Programs print the message without a traceback and exit with code 2.
    """
