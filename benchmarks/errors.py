"""What can go wrong with a measurement: one sentence each, never a traceback."""


class InputError(Exception):
    """A parameter that cannot be meant. Raised before anything starts; the message names it and what would
    do.
    """


class NothingMeasuredError(Exception):
    """A run in which everything failed. The message says what did and why."""


class NotInstalledError(Exception):
    """A peer or tool that is absent. The message names it and the command that installs it."""
