"""The page on the architecture says what the code is: its picture, its table and its names."""

import re
import runpy
import tomllib
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "sockservice"
PAGE = ROOT / "docs" / "architecture.md"
PICTURE = ROOT / "docs" / "pictures" / "architecture.svg"
AGAIN = "run .venv/bin/python scripts/architecture.py"

WRITTEN, _, TABLE = PAGE.read_text().partition("<!-- modules -->")
PATHS = set(re.findall(r"`((?:\w+/)+\w+\.\w+)`", WRITTEN))
NAME = r"`(\w+(?:\.\w+)*)`"
# `name` in `path`, or `name` (`path`).
PLACED = re.findall(NAME + r"\s(?:in\s|\()`((?:\w+/)+\w+\.py)`", WRITTEN)
SVG = "{http://www.w3.org/2000/svg}"


def layers() -> list[list[str]]:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    (found,) = [each for each in contracts["contracts"] if each["type"] == "layers"]
    return [layer.split(" | ") for layer in found["layers"]]


def packages() -> dict[str, str]:
    """Give the first sentence of each package's docstring."""
    found = PACKAGE.glob("*/__init__.py")
    return {path.parent.name: path.read_text().split('"""')[1] for path in found}


def place(path: str) -> Path:
    return next((at for at in (PACKAGE / path, ROOT / path) if at.exists()), ROOT / path)


def words(*paths: Path) -> set[str]:
    return {word for path in paths for word in re.findall(r"\w+", path.read_text())}


def test_picture_and_table_are_those_of_the_code_as_it_is() -> None:
    made = runpy.run_path(str(ROOT / "scripts" / "architecture.py"))
    assert PICTURE.read_text() == made["drawing"](), AGAIN
    assert PAGE.read_text() == made["page"](PAGE.read_text()), AGAIN


def test_the_picture_has_the_packages_their_sentences_and_the_order_of_the_contract() -> None:
    svg = ElementTree.fromstring(PICTURE.read_text())
    tops: dict[str, float] = {}
    said = {}
    for box in svg.iter(f"{SVG}g"):
        name, *lines = (text.text or "" for text in box.iter(f"{SVG}text"))
        (rect,) = box.iter(f"{SVG}rect")
        tops[name] = float(rect.attrib["y"])
        if box.attrib["class"] == "package":
            said[name] = " ".join(lines)
    assert said == {name: text.replace("`", "") for name, text in packages().items()}
    assert len(said) == 10
    rows = sorted(set(tops.values()))
    assert [{name for name, top in tops.items() if top == row} for row in rows] == [
        set(layer) for layer in layers()
    ]
    # From each row to the next there is an arrow, which points down.
    arrows = [path.attrib["d"] for path in svg.iter(f"{SVG}path")]
    ends = [tuple(map(float, re.findall(r"M\d+ (\d+)V(\d+)", each)[0])) for each in arrows]
    assert len(ends) == len(rows) - 1
    for (start, end), above, below in zip(ends, rows, rows[1:], strict=False):
        assert above < start < end < below


def test_the_page_has_every_package_and_every_module_once() -> None:
    listed = Counter(re.findall(r"\]\(\.\./sockservice/(.+?)\)", TABLE))
    there = [path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py")]
    files = [path.parent if path.name == "__init__.py" else path for path in there]
    assert listed == Counter("__init__.py" if path == Path() else str(path) for path in files)
    for name, text in packages().items():
        assert f"| **[{name}](../sockservice/{name})** | **{text}** |" in TABLE


def test_files_that_are_named_are_there() -> None:
    assert [path for path in PATHS if not place(path).exists()] == []
    assert len(PATHS) > 60


def test_names_are_in_the_files_where_the_page_has_them() -> None:
    elsewhere = [
        (name, path)
        for name, path in PLACED
        if name.rpartition(".")[2] not in words(place(path)) | {place(path).stem}
    ]
    assert elsewhere == []
    assert len(PLACED) > 20


def test_names_are_those_of_the_code() -> None:
    folders = ("sockservice", "tests", "benchmarks")
    known = words(ROOT / "pyproject.toml", *(p for f in folders for p in (ROOT / f).rglob("*.py")))
    named = re.findall(NAME, WRITTEN.partition("## Why not Twisted's own")[0])
    parts = {part for name in named for part in name.split(".")}
    assert parts - known == set()
    assert len(parts) > 80


def test_tests_that_are_named_are_there() -> None:
    sources = "".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    named = set(re.findall(r"`(test_\w+)`", WRITTEN))
    assert [name for name in sorted(named) if f"def {name}(" not in sources] == []
    assert len(named) > 10
