"""The lines with which a server ends a connection, told from replies."""

#: How lines begin with which a server ends a connection: they answer no line of ours.
FAREWELLS = (b"error busy: ", b"error not allowed: ", b"error idle for ")
#: Seconds from which on such a line is a reply after all, if the connection goes on.
DOUBT = 1.0


def rejected(refusal: str) -> bool:
    """Say whether a LineClient's `refusal` is that of a server that let nobody in."""
    return refusal.startswith(("error busy: ", "error not allowed: "))
