"""The phases of a connection, of which each leads only to a later one."""

from enum import IntEnum


class Phase(IntEnum):
    """How far a connection has come."""

    #: Lines are read and answered.
    SERVING = 0
    #: The service stops: nothing more is read than has arrived, and that is answered.
    DRAINING = 1
    #: No further line is taken; replies already due go out.
    CLOSING = 2
    #: The last reply is out, or never will be.
    SHUT = 3


# A member is found in the enumeration in three times the time that a module's name takes.
SERVING, DRAINING, CLOSING, SHUT = Phase
