"""`sockservice send`: lines to a server, typed or streamed."""
