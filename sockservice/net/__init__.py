"""Networking beyond Twisted's own: sockets, ports, TLS, UDP; independent of any protocol."""
