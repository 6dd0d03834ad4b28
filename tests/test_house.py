"""The house rules that a linter does not know. Each failure names the file and the rule (design, section 2)."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

HOUSE = Path(__file__).parents[1] / "appliance"
FLOORS = (  # ground floor first; rooms on one floor do not know each other
    {"__init__", "errors", "version", "late_methods"},
    {"host", "schema", "bolt", "payload"},
    {"supervisor", "store", "systemd"},
    {"containers", "migration", "external", "machine"},
    {"units", "etcdapi", "provision"},
    {"update"},
    {"release", "cluster"},
    {"settings", "keeping", "telling", "late_rooms"},
    {"api", "console", "doors"},
    {"own_slots"},
    {"own_image"},
    {"app", "etcd_app"},
    {"lives"},
    {"cli"},
    {"__main__"},
)
OUTSIDE = {
    "asyncio", "ctypes", "fcntl", "glob", "multiprocessing", "os", "random", "resource", "select", "selectors",
    "shutil", "signal", "socket", "subprocess", "tempfile", "threading", "time", "urllib", "uuid",
}  # fmt: skip
OUTSIDE_CALLS = {"open", "input", "now", "utcnow", "today"}
# The command line is plain blocking code: it may touch the machine. version reads one file before anything is imported.
MAY_TOUCH_THE_MACHINE = {"host", "cli", "__main__", "version"}
LAZY_DOORS = {"host"}  # entered by its modules, so that a short command does not load the long ones
LINES_MAX = 500
FILES = sorted(HOUSE.rglob("*.py"))


def room(path: Path) -> str:
    return path.relative_to(HOUSE).parts[0].removesuffix(".py")


def floor(name: str) -> int:
    for number, rooms in enumerate(FLOORS):
        if name in rooms:
            return number
    raise AssertionError(f"{name} stands on no floor: add it to FLOORS")


def imports(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def calls(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            if isinstance(node.func, ast.Name):
                yield node.func.id
            elif isinstance(node.func, ast.Attribute) and node.func.attr in {"now", "utcnow", "today"}:
                yield node.func.attr


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(HOUSE)))
def test_imports_go_down_through_doors(path: Path) -> None:
    for name in imports(ast.parse(path.read_text())):
        top, other, inner = [*name.split(".")[:3], "", ""][:3]
        if top == "appliance" and other and other != room(path):
            assert floor(other) < floor(room(path)), f"{room(path)} may not import {other}"
            if other not in LAZY_DOORS:
                assert not (HOUSE / other / f"{inner}.py").is_file(), f"{name}: enter {other} by its door"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(HOUSE)))
def test_only_host_touches_the_machine(path: Path) -> None:
    if room(path) in MAY_TOUCH_THE_MACHINE:
        return
    tree = ast.parse(path.read_text())
    touched = OUTSIDE & {name.split(".")[0] for name in imports(tree)}
    assert not touched, f"{room(path)} may not import {sorted(touched)}: act through appliance.host"
    called = OUTSIDE_CALLS & set(calls(tree))
    assert not called, f"{room(path)} may not call {sorted(called)}: act through appliance.host"


def test_no_import_cycles_between_modules() -> None:
    names = {
        ".".join(("appliance", *path.relative_to(HOUSE).with_suffix("").parts)).removesuffix(".__init__"): path
        for path in FILES
    }
    edges: dict[str, set[str]] = {}
    for name, path in names.items():
        found = set()
        for node in ast.parse(path.read_text()).body:  # module level only: an import inside a function is no cycle
            if isinstance(node, ast.Import | ast.ImportFrom):
                for imported in imports(node):
                    parent = imported.rpartition(".")[0]
                    found |= {imported} & names.keys() or {parent} & names.keys()
        edges[name] = found - {name}
    done: set[str] = set()

    def visit(name: str, above: tuple[str, ...]) -> None:
        assert name not in above, "import cycle: " + " -> ".join((*above[above.index(name) :], name))
        if name not in done:
            for other in sorted(edges[name]):
                visit(other, (*above, name))
            done.add(name)

    for name in sorted(edges):
        visit(name, ())


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(HOUSE)))
def test_no_file_grows_past_reading(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= LINES_MAX


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(HOUSE)))
def test_no_file_is_a_drawer(path: Path) -> None:
    for word in ("util", "common", "helper", "manager", "misc", "base"):
        assert word not in path.stem, f"{path.name}: name it for what it is"


def test_packaging_is_no_package() -> None:
    # With an __init__.py it would shadow PyPI's "packaging", on which pytest itself stands.
    assert not (HOUSE.parent / "packaging" / "__init__.py").exists()
    assert sys.version_info >= (3, 11)
