"""TLS for both ends: contexts from files, half-close, and its failures in words."""
