"""Text from elsewhere, made fit for a log, a terminal and one line."""


def printable(text: str) -> str:
    """Escape what could end the line or command a terminal."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
