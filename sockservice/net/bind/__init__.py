"""Bind sockets to what an endpoint describes, or say why not."""
