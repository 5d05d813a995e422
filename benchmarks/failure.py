"""The one exception of a measurement that does not count."""


class Failure(Exception):
    """A server, the loader or the compiler did not do what it must; the text says what."""
