"""`sockservice send`: send lines to a server, typed or streamed."""
