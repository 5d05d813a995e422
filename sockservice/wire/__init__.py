"""Bytes to lines and back: framings, telnet, PROXY headers, escaping; no I/O and no Twisted."""
