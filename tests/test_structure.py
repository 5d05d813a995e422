"""The shape of the package: what imports what, and how long its modules are."""

from pathlib import Path

import grimp

import sockservice

FOLDER = Path(sockservice.__file__).parent

#: Most lines of a module.
LONGEST = 350

#: Modules that are longer, until they are taken apart.
LONGER = {"server/line.py"}


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
