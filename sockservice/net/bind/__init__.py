"""Bind the sockets that endpoints describe."""
