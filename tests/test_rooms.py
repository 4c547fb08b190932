"""The folder list stays a map: each file and class has one name, and no folder is crowded."""

from __future__ import annotations

import ast
from collections import Counter, defaultdict
from graphlib import TopologicalSorter
from pathlib import Path

import grimp

PACKAGE = Path(__file__).resolve().parents[1] / "mirror"
FILES = sorted(PACKAGE.rglob("*.py"))
MOST_FILES = 14

# A file here is named for the format, the engine or the command that it implements.
SAME_ON_PURPOSE = (
    PACKAGE / "store" / "engines",
    PACKAGE / "dataset" / "formats",
    PACKAGE / "cli" / "commands",
)
CROWDED_ON_PURPOSE = PACKAGE / "cli" / "commands"


def test_a_file_name_occurs_once() -> None:
    places = defaultdict(list)
    for path in FILES:
        if path.name != "__init__.py" and path.parent not in SAME_ON_PURPOSE:
            places[path.name].append(str(path.relative_to(PACKAGE)))
    assert not {name: found for name, found in places.items() if len(found) > 1}


def test_a_class_name_occurs_once() -> None:
    places = defaultdict(list)
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.ClassDef):
                places[node.name].append(str(path.relative_to(PACKAGE)))
    assert not {name: found for name, found in places.items() if len(found) > 1}


def test_no_folder_is_crowded() -> None:
    files = Counter(path.parent for path in FILES if path.name != "__init__.py")
    files.pop(CROWDED_ON_PURPOSE)
    assert not {str(folder): n for folder, n in files.items() if n > MOST_FILES}


def test_no_files_import_each_other_in_a_circle() -> None:
    graph = grimp.build_graph("mirror", exclude_type_checking_imports=True, cache_dir=None)
    imports = {name: graph.find_modules_directly_imported_by(name) for name in graph.modules}
    TopologicalSorter(imports).prepare()  # raises CycleError, which names the circle
