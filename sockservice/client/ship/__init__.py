"""Follow log files through rotation, each in a session of its own."""
