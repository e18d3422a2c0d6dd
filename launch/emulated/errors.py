"""How the tool fails: one line and an exit code (2 usage, 3 something missing on this machine, 4 a process or the network)."""
import difflib


class ClusterError(Exception):
    """str() is the line, without the tool's name; `code` is what the tool exits with."""

    def __init__(self, code, message):
        super().__init__(message)
        self.code = code


class Interrupted(Exception):
    """Raised in the main thread by a signal handler."""

    def __init__(self, signum):
        super().__init__(f"signal {signum}")
        self.signum = signum


def nearest(word, known):
    """", did you mean X?" or nothing."""
    close = difflib.get_close_matches(word, known, n=1)
    return f"; did you mean {close[0]}?" if close else ""
