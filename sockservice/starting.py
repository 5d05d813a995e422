"""What keeps the service from starting, told so that one line is all the person sees."""

from sockservice.escaping import printable


class CannotStart(SystemExit, Exception):
    """The service cannot start; the text is one line for whoever started it, and is made so.

    As a SystemExit it ends the process with status 1 and no traceback. As an
    Exception it lets twistd remove its pidfile, or report from a daemon, first.
    """

    def __init__(self, text: str) -> None:
        super().__init__(printable(text))
        self.code = 1
