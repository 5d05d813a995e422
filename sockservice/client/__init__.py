"""Clients of line and datagram servers."""
