"""Words in the number that goes with what is counted."""


def plural(number: float, one: str, many: str = "") -> str:
    """Return the word that goes with `number`: `one` for 1, or `many`, which is `one` with an s."""
    return one if number == 1 else many or f"{one}s"


def counted(number: int, one: str, many: str = "") -> str:
    """Return a number with the word that goes with it: "1 line", "2 lines"."""
    return f"{number} {plural(number, one, many)}"


def grouped(number: int, one: str, many: str = "") -> str:
    """Return the same with commas in large numbers: "1,000 lines"."""
    return f"{number:,} {plural(number, one, many)}"


def inSeconds(seconds: float) -> str:
    """Return a time in words, with at most ten digits: "1 second", "0.5 seconds"."""
    shown = f"{seconds:.10g}"
    return f"{shown} {plural(float(shown), 'second')}"


def ranged(first: int, last: int, one: str, many: str = "") -> str:
    """Return which ones of a row: "line 5", "lines 5 to 7"."""
    if first == last:
        return f"{one} {first}"
    return f"{plural(2, one, many)} {first} to {last}"
