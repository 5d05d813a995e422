"""TLS for clients and servers: contexts from files, half-close, error messages."""
