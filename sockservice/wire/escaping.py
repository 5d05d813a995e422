"""Escape text from elsewhere for a log, a terminal and a single line."""


def printable(text: str) -> str:
    """Escape all characters that are not printable: line endings, control sequences."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
