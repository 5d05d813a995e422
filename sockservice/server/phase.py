"""The phases of a connection, of which each leads only to a later one.

Plain numbers: they are compared for each line, and a member of an enumeration takes longer.
"""

from typing import Final

#: Lines are read and answered.
SERVING: Final = 0
#: The service stops: nothing more is read than has arrived, and that is answered.
DRAINING: Final = 1
#: No further line is taken; replies already due go out.
CLOSING: Final = 2
#: The last reply is out, or never will be.
SHUT: Final = 3
