"""Keep lines on disk until a session has them."""
