"""Say in one line why TLS has failed."""

import sys

_NO_TLS = ("wrong version number", "packet length too long", "record layer failure", "http request")


def failing(problem: BaseException | None, other: str) -> str:
    """Return an error of OpenSSL's in one line, or "" for any other error.

    `other` is what the other side is called.
    """
    if "OpenSSL" not in sys.modules:
        return ""
    from OpenSSL import SSL

    if not isinstance(problem, SSL.Error):
        return ""
    said = problem.args[0] if problem.args else ()
    reason = next((each[2] for each in said), "")
    if any(each in reason for each in _NO_TLS):
        return f"{other} does not speak TLS"
    _, alert, why = reason.partition("alert ")
    if alert:
        what = "our certificate" if "certificate" in why or why == "unknown ca" else "TLS"
        return f"{other} refused {what}: {why}"
    return f"TLS failed: {reason or 'cut off'}"
