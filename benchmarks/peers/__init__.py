"""The contestants, one small script each; each prints where it listens and serves for ever."""
