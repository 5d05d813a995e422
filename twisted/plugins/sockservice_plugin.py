"""Lets twistd and twist find sockservice."""

from twisted.application.service import ServiceMaker

sockservice = ServiceMaker(
    "sockservice",
    "sockservice.tap",
    "Acknowledge lines over TCP, echo datagrams over UDP.",
    "sockservice",
)
