"""`sockservice ship`: log files shipped through rotation."""
