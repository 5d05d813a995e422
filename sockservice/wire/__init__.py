"""Wire formats, without I/O and Twisted: framings, telnet, PROXY headers, escaping."""
