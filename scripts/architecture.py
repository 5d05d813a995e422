"""Write what docs/architecture.md has of the code itself: its picture, and its table of modules.

The picture, docs/pictures/architecture.svg, shows the layers of the import contract in
pyproject.toml; what each box and each row says is the first sentence of a docstring.

    .venv/bin/python scripts/architecture.py
"""

import ast
import re
import textwrap
import tomllib
from collections.abc import Iterator
from html import escape
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "sockservice"
PAGE = ROOT / "docs" / "architecture.md"
PICTURE = ROOT / "docs" / "pictures" / "architecture.svg"

# Where the table stands on the page.
TABLE = re.compile(r"(<!-- modules -->\n\n).*?(\n<!-- end -->)", re.DOTALL)

WIDTH, GAP, ARROW = 800, 24, 26
STYLE = """\
text { font: 13px system-ui, sans-serif; fill: #7d8590; }
.name { font: 600 14px ui-monospace, Menlo, Consolas, monospace; }
rect { fill: #8b949e; fill-opacity: .1; stroke: #8b949e; stroke-opacity: .45; }
.package rect { fill: #748ffc; fill-opacity: .16; stroke: #748ffc; stroke-opacity: .8; }
.arrow { fill: none; stroke: #8b949e; stroke-width: 1.5; }
@media (prefers-color-scheme: light) { text { fill: #424a53; } .name { fill: #1f2328; } }
@media (prefers-color-scheme: dark) { text { fill: #c9d1d9; } .name { fill: #f0f6fc; } }
"""


def layers() -> list[list[str]]:
    """Give the layers of the import contract, from the top, each with its members."""
    with open(ROOT / "pyproject.toml", "rb") as file:
        contracts = tomllib.load(file)["tool"]["importlinter"]["contracts"]
    (contract,) = (each for each in contracts if each["type"] == "layers")
    return [re.split(r"\s*[|:]\s*", layer) for layer in contract["layers"]]


def place(member: str) -> Path:
    """Give the file that holds a member of the contract, or the docstring of the package it is."""
    package = PACKAGE / member / "__init__.py"
    return package if package.exists() else PACKAGE / f"{member}.py"


def sentence(module: Path) -> str:
    """Give the first paragraph of a module's docstring, on one line."""
    said = ast.get_docstring(ast.parse(module.read_text())) or ""
    return " ".join(said.partition("\n\n")[0].split())


def drawing() -> str:
    """Draw the layers, one beneath the other, with an arrow from each to the next."""
    parts = []
    top = 1
    for number, members in enumerate(layers()):
        if number:
            half = WIDTH // 2
            tip = top + ARROW - 3
            parts.append(
                f'<path class="arrow" d="M{half} {top + 3}V{tip}m-5 -6l5 6l5 -6"/>',
            )
            top += ARROW
        width = (WIDTH - 2 - GAP * (len(members) - 1)) // len(members)
        texts = [
            textwrap.wrap(sentence(place(member)).replace("`", ""), (width - 28) // 7)
            for member in members
        ]
        height = 36 + 18 * max(map(len, texts))
        for column, (member, text) in enumerate(zip(members, texts, strict=True)):
            left = 1 + column * (width + GAP)
            kind = "package" if place(member).name == "__init__.py" else "module"
            lines = "".join(
                f'\n<text x="{left + 14}" y="{top + 44 + 18 * line}">{escape(words)}</text>'
                for line, words in enumerate(text)
            )
            parts.append(
                f'<g class="{kind}" id="{member}">'
                f'<rect x="{left}" y="{top}" width="{width}" height="{height}" rx="6"/>\n'
                f'<text class="name" x="{left + 14}" y="{top + 24}">{member}</text>{lines}</g>'
            )
        top += height
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {top + 1}"'
        f' width="{WIDTH}" height="{top + 1}" role="img">\n'
        f"<title>The packages of sockservice: each row may import the rows below it</title>\n"
        f"<style>\n{STYLE}</style>\n" + "\n".join(parts) + "\n</svg>\n"
    )


def rows() -> Iterator[str]:
    """Give the rows of the table: every module once, in the order of the contract."""
    single = [PACKAGE / "__init__.py"]
    for member in (member for members in layers() for member in members):
        if place(member).name == "__init__.py":
            yield f"| **[{member}](../sockservice/{member})** | **{sentence(place(member))}** |"
            for module in sorted((PACKAGE / member).rglob("*.py")):
                within = module.relative_to(PACKAGE / member)
                if within.name == "__init__.py":
                    within = within.parent
                if within.name:
                    yield row(member, within, module)
        else:
            single.append(place(member))
    yield "| **beside them** | |"
    for module in single:
        yield row("", module.relative_to(PACKAGE), module)


def row(member: str, within: Path, module: Path) -> str:
    """Give the row of one module, or of a package within a package."""
    folder = "" if within.suffix else "/"
    target = Path("..") / "sockservice" / member / within
    return f"| [{within}{folder}]({target}) | {sentence(module)} |"


def page(text: str) -> str:
    """Give the page with its table as the code has it now."""
    table = "\n".join(["| module | its one job |", "|---|---|", *rows()])
    return TABLE.sub(lambda found: f"{found[1]}{table}\n{found[2]}", text)


if __name__ == "__main__":
    PICTURE.write_text(drawing())
    PAGE.write_text(page(PAGE.read_text()))
