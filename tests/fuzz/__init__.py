"""Random input for what peers can reach: `python -m tests.fuzz --help`.

The inputs kept in seeds/ are replayed in the suite, in tests/test_fuzz.py.
"""
