"""Measure how long what is in a file takes until the server has acknowledged it."""


class Lateness:
    """Follows what is at the end of a file, from when it is seen until it is acknowledged.

    Then what is at the end by that time is followed, and so on.
    """

    def __init__(self) -> None:
        self._took = 0.0
        self._since: float | None = None  # what is followed was seen; None if that is nothing
        self._path, self._end = "", 0  # where it ends
        self._position: int | None = None  # of the session behind it, once it has been read

    def seconds(
        self, now: float, path: str, offset: int, lag: int, position: int, outstanding: int
    ) -> float:
        """Return how long it took last, or has taken by `now` if that is more.

        `offset` bytes of the file `path` have been read, `lag` have not; `position` lines of
        the session are acknowledged, `outstanding` have been read and are not. It is 0 if all
        is acknowledged. To be called often.
        """
        if self._since is not None:
            if self._position is None and (path != self._path or offset >= self._end):
                self._position = position + outstanding
            if self._position is not None and position >= self._position:
                self._took = now - self._since
                self._since = None
        if not (lag or outstanding):
            self._since = None
            self._took = 0.0
        elif self._since is None:
            self._since = now
            self._path, self._end = path, offset + lag
            self._position = None
        return max(self._took, 0.0 if self._since is None else now - self._since)
