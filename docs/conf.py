"""Settings of the site: the README, the pages beside this file, and the public names."""

import re
import shutil
import sys
from contextlib import suppress
from inspect import isroutine, signature
from pathlib import Path
from typing import Any

from docutils.nodes import Element, document
from pygments.lexers.special import TextLexer
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.highlighting import lexers
from sphinx.util import logging
from twisted.internet import interfaces
from twisted.python.reflect import InvalidName, namedAny
from zope.interface.interface import InterfaceClass

import sockservice

ROOT = Path(__file__).parent.parent

#: The pages by the heading that they stand beneath, in order. A page that is not there is left
#: out; one that is there and has no place here fails the build, as no toctree includes it.
PLACES = {
    "Use": [
        "docs/client",
        "docs/sessions",
        "docs/relay",
        "docs/shipping",
        "docs/syslog",
        "docs/extending",
        "docs/testing",
        "docs/sockets",
    ],
    "Operate": [
        "docs/operating",
        "docs/status",
        "docs/workers",
        "docs/durability",
        "docs/cluster",
        "docs/performance",
    ],
    "Look up": ["docs/protocol", "docs/api", "CHANGELOG"],
    "Contribute": ["CONTRIBUTING", "docs/architecture"],
    "中文": ["README.zh-CN", "docs/sockets.zh-CN"],
}

# Nobody highlights them.
lexers["rsyslog"] = lexers["syslog-ng"] = TextLexer()

project = "sockservice"
version = release = sockservice.__version__
root_doc = "README"
include_patterns = ["*.md", "docs/*"]
exclude_patterns = [".*"]
extensions = ["myst_parser", "sphinx.ext.autodoc"]

# Every reference has to lead somewhere, but for one to what others describe, and a `name` in a
# docstring, which is a link if it can be and may be a parameter's as well.
nitpicky = True
default_role = "py:obj"
nitpick_ignore_regex = [("py:obj", ".*"), ("py:.*", r"(collections|socket|twisted|zope)\..*")]

#: In a docstring: a role's text or what stands in single backticks, or the name of a page.
MARKED = re.compile(r"(:\w+:)?(?<!`)`([^`]+)`(?!`)|\bdocs/(\w+)\.md\b")

# Links to headings, as GitHub names them.
myst_heading_anchors = 6

autodoc_default_options = {"members": True, "member-order": "bysource"}
# What is Twisted's is described by Twisted, in another markup.
autodoc_inherit_docstrings = False
# A longer signature has a line for each parameter.
maximum_signature_line_length = 120
autodoc_preserve_defaults = True

html_theme = "furo"
html_title = f"sockservice {release}"
html_show_copyright = False
html_copy_source = False
html_show_sourcelink = False


def navigate(app: Sphinx, page: str, source: list[str]) -> None:
    """Put the pages in their places beneath the README, which GitHub shows without this."""
    if page != root_doc:
        return
    for heading, pages in PLACES.items():
        there = [each for each in pages if any(ROOT.glob(f"{each}.[mr]*"))]
        if there:
            listed = "\n".join(f"/{each}" for each in there)
            source[0] += f"\n```{{toctree}}\n:hidden:\n:caption: {heading}\n\n{listed}\n```\n"


def complain(app: Sphinx, environment: BuildEnvironment) -> None:
    """Warn of public names that the reference says nothing of."""
    described = environment.domaindata["py"]["objects"]
    for name in sockservice.__all__:
        if f"sockservice.{name}" not in described:
            logging.getLogger(__name__).warning("sockservice.%s is not in docs/api.rst", name)


def mark(app: Sphinx, kind: str, name: str, thing: object, _: object, lines: list[str]) -> None:
    """Write a docstring in the markup of the reference: its code, and the pages it names."""
    parameters = signature(thing).parameters if isroutine(thing) else {}

    def marked(found: re.Match[str]) -> str:
        role, code, page = found.groups()
        if page:
            return f":doc:`{found[0]} </docs/{page}>`"
        code = " ".join(code.split())
        linked = code.isidentifier() and code not in parameters
        return found[0] if role else f"`{code}`" if linked else f"``{code}``"

    lines[:] = MARKED.sub(marked, "\n".join(lines)).split("\n")
    if lines[0].startswith("Alias for field number"):
        lines.clear()  # what Python says of a named tuple's fields


def private(app: Sphinx, _: BuildEnvironment, node: Element, shown: Element) -> Element | None:
    """Show the name of what the package has and the reference has not, without a link."""
    target = node["reftarget"]
    loaded = [each for each in sys.modules if each.partition(".")[0] == "sockservice"]
    whole = target.startswith("sockservice.")
    for name in [target] if whole else [f"{each}.{target}" for each in loaded]:
        with suppress(AttributeError, InvalidName):
            namedAny(name)
            return shown if node["refdomain"] == "py" else None
    return None


def unlink(app: Sphinx, document: document) -> None:
    """Show without a link what is no page of the site: a folder, or a page that was left out."""
    placed = {ROOT / f"{page}.md" for pages in PLACES.values() for page in pages}
    for node in list(document.findall(pending_xref)):
        if node["reftype"] == "myst" and not node["refdomain"]:
            path = (Path(document["source"]).parent / node["reftarget"].partition("#")[0]).resolve()
            if path.is_dir() or (path in placed and not path.exists()):
                node.replace_self(node.children)


def speak(app: Sphinx, page: str, template: str, context: dict[str, Any], _: Any) -> None:
    """Name the language of a page that is not in English."""
    if page.endswith(".zh-CN"):
        context["language"] = "zh-CN"


def welcome(app: Sphinx, failure: Exception | None) -> None:
    """Make the README what a folder shows when it is asked for no page."""
    if failure is None and app.builder.name == "html":
        shutil.copyfile(app.outdir / "README.html", app.outdir / "index.html")


def setup(app: Sphinx) -> None:
    app.connect("source-read", navigate)
    # Annotations are shown by this name, which interfaces have not.
    for interface in vars(interfaces).values():
        if isinstance(interface, InterfaceClass):
            interface.__qualname__ = interface.__name__
    app.connect("autodoc-process-docstring", mark)
    app.connect("missing-reference", private)
    app.connect("doctree-read", unlink)
    app.connect("env-check-consistency", complain)
    app.connect("html-page-context", speak)
    app.connect("build-finished", welcome)
