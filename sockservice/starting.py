"""What keeps the service from starting, told so that one line is all the person sees."""


class CannotStart(SystemExit, Exception):
    """The service cannot start; the text is one line for whoever started it, and is made so.

    As a SystemExit it ends the process with status 1 and no traceback. As an
    Exception it lets twistd remove its pidfile, or report from a daemon, first.
    """

    def __init__(self, text: str) -> None:
        super().__init__("".join(c if c.isprintable() else ascii(c)[1:-1] for c in text))
        self.code = 1
