"""The other end: ask, connect, send reliably."""
