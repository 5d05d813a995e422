"""The promise of `ok`, tried many times over: `python -m tests.soak --help`.

A few rounds of each are in the suite, in tests/test_crash.py.
"""
