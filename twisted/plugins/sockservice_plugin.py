"""Lets twistd and twist find sockservice."""

from typing import Any

from twisted.application.service import ServiceMaker


class Maker(ServiceMaker):  # type: ignore[misc, unused-ignore]
    """A ServiceMaker that takes signals before it imports the service."""

    @property
    def options(self) -> Any:
        """The class of the options; asked for when this is the service to start."""
        from sockservice.daemon.early import USELESS, Early, installed

        if installed() is None:
            Early().install(*USELESS)
        return super().options


sockservice = Maker(
    "sockservice",
    "sockservice.tap",
    "Acknowledge lines over TCP, echo datagrams over UDP.",
    "sockservice",
)
