"""Tell the line with which a server ends a connection from a reply."""

#: Beginnings of lines with which a server ends a connection, and which answer none of ours.
FAREWELLS = (b"error busy: ", b"error not allowed: ", b"error idle for ")
#: Seconds after which such a line is a reply after all, if the connection goes on.
DOUBT = 1.0


def rejected(refusal: str) -> bool:
    """Return whether a LineClient's `refusal` says that the connection was rejected."""
    return refusal.startswith(("error busy: ", "error not allowed: "))
