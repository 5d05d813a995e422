"""The promise of `ok`, tried many times over, and floods: `python -m tests.soak --help`.

A few rounds of each are in the suite, in tests/process/test_crash.py.
"""
