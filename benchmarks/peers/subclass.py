"""A subclass of `sockservice.LineServer` with one method, as a user would write it."""

from sockservice import LineServer


class Upper(LineServer):
    def answer(self, line: bytes) -> bytes:
        return line.upper()
