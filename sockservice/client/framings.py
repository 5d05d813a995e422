"""Find the framing that the user names: a built-in one, or any class."""

from collections.abc import Callable

from sockservice import importing
from sockservice.wire.chunks import Chunks
from sockservice.wire.framer import Framer
from sockservice.wire.framing import Framing
from sockservice.wire.octets import OctetCounted
from sockservice.wire.relpclient import RelpReplies

#: The framings that come with the package, by name.
FRAMINGS: dict[str, Callable[[int], Framing]] = {
    "lines": Framer,
    "chunks": Chunks,
    "relp": RelpReplies,
    "octet-counted": OctetCounted,
}


def framingNamed(name: str) -> Callable[[int], Framing]:
    """Return the framing called `name`: one of FRAMINGS, `module.Class` or `module:Class`.

    :raises ValueError: There is none, or it can't be made; the text says why, in one line.
    """
    if name in FRAMINGS:
        return FRAMINGS[name]
    dotted = name.replace(":", ".", 1)
    if not all(dotted.split(".")) or "." not in dotted:
        builtin = ", ".join(FRAMINGS)
        raise ValueError(
            f"no such framing: {ascii(name)[1:-1]}; built in are {builtin}; "
            "a class is written module.Class"
        )
    found: Callable[[int], Framing] = importing.named(dotted)
    try:
        made = found(1)
    except Exception as problem:
        raise ValueError(f"{dotted} cannot be made: {importing.described(problem)}") from problem
    if not all(hasattr(made, each) for each in ("receive", "take", "encode")):
        raise ValueError(f"{dotted} is no Framing")
    return found
