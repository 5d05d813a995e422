"""The shape of the package: what imports what, how long modules are, what classes are called."""

import ast
from collections import defaultdict
from pathlib import Path

import grimp

import sockservice

FOLDER = Path(sockservice.__file__).parent

#: Most lines of a module.
LONGEST = 350

#: Modules that are longer, until they are taken apart.
LONGER: set[str] = set()

#: Names that two classes share, until one of them has another.
SHARED: set[str] = set()


def test_no_imports_go_in_a_circle() -> None:
    """Not even those inside functions; what only a type checker imports does not count."""
    graph = grimp.build_graph("sockservice", exclude_type_checking_imports=True, cache_dir=None)
    circles = [
        chain
        for module in sorted(graph.modules)
        for imported in sorted(graph.find_modules_directly_imported_by(module))
        if (chain := graph.find_shortest_chain(importer=imported, imported=module))
    ]
    assert circles == []


def test_no_module_is_too_long_to_be_read_at_once() -> None:
    lengths = {
        str(path.relative_to(FOLDER)): len(path.read_text().splitlines())
        for path in FOLDER.rglob("*.py")
    }
    assert {name for name, lines in lengths.items() if lines > LONGEST} <= LONGER


def test_no_two_classes_share_a_name() -> None:
    found: defaultdict[str, set[str]] = defaultdict(set)
    for path in FOLDER.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                found[node.name].add(str(path.relative_to(FOLDER)))
    assert {name for name, paths in found.items() if len(paths) > 1} <= SHARED
