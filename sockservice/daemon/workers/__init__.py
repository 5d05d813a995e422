"""Worker processes (`--workers`), and their parent."""
