"""The processes of `--workers`, and the one that starts them."""
