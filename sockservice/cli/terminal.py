"""Bytes from elsewhere, made fit for a terminal."""


def printable(line: bytes) -> bytes:
    """Escape what could command the terminal; text in UTF-8 stays as it is."""
    text = line.decode("utf-8", "backslashreplace")
    escaped = (c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return "".join(escaped).encode()
