"""Sockets, ports, TLS and UDP that Twisted lacks; knows no protocol."""
