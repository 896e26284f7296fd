"""Imports point down, one module knows Ray and one MLflow, and nothing heavy loads before there is work."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("pipelines", "model", "workflows")
STANDARD = sys.stdlib_module_names


def modules():
    return sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


def imports_of(path: Path) -> set[str]:
    """Dotted names of everything that a file imports, at the top or inside functions."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
    return names


def importers(package: str) -> set[str]:
    """Files that import a package."""
    found = {p for p in modules() if any(n.split(".")[0] == package for n in imports_of(p))}
    return {str(path.relative_to(ROOT)) for path in found}


def heads(folder: str) -> set[str]:
    return {name.split(".")[0] for path in (ROOT / folder).rglob("*.py") for name in imports_of(path)}


def test_pipelines_and_model_never_meet_and_know_no_workflow():
    assert not heads("pipelines") & {"model", "workflows", "ray", "mlflow"}
    assert not heads("model") & {"pipelines", "workflows", "ray", "mlflow", "nvidia"}


def test_model_needs_torch_alone():
    assert heads("model") - STANDARD - {"model"} <= {"torch", "numpy", "safetensors"}


@pytest.mark.parametrize(
    ("package", "owner"), [("ray", "workflows/compute/on_ray.py"), ("mlflow", "workflows/tracking/server.py")]
)
def test_one_module_knows(package, owner):
    assert {f for f in importers(package) if not f.startswith("workflows/bench/")} == {owner}


@pytest.mark.parametrize("path", ["pipelines/specs.py", "model/specs.py", "model/notation.py"])
def test_specs_need_the_standard_library_alone(path):
    others = {name for name in imports_of(ROOT / path) if not name.startswith("model.notation")}
    assert {name.split(".")[0] for name in others} <= STANDARD


def test_nothing_imports_tests_or_notebooks():
    assert not (heads("pipelines") | heads("model") | heads("workflows")) & {"tests", "notebooks"}


def test_packages_hold_a_docstring_and_nothing_else():
    for path in modules():
        if path.name == "__init__.py":
            body = ast.parse(path.read_text()).body
            assert len(body) == 1, f"{path} holds code"
            assert isinstance(body[0].value, ast.Constant), f"{path} holds code"


def test_there_are_no_import_cycles():
    """Among the files themselves, imports inside functions included."""
    names = {".".join(p.relative_to(ROOT).with_suffix("").parts): p for p in modules() if p.name != "__init__.py"}
    graph = {name: imports_of(path) & names.keys() for name, path in names.items()}
    done, open_ = set(), []

    def visit(name):
        assert name not in open_, f"cycle: {' -> '.join([*open_[open_.index(name) :], name])}"
        if name not in done:
            open_.append(name)
            for other in sorted(graph[name]):
                visit(other)
            done.add(open_.pop())

    for name in sorted(graph):
        visit(name)


# Rooms of workflows/, each above those that it may enter; files beside them belong to the one below their line.
FLOORS = (
    ("cli",),
    ("commands",),
    ("claims",),
    ("bench", "studies"),
    ("stages",),
    ("report",),
    ("workflow", "recipes"),
    ("recipes_cifar10",),
    ("engine",),
    ("tracking", "training"),
    ("compute",),
    ("console", "config", "failures", "folders", "processes", "streams"),
)


def test_rooms_point_down():
    floor = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
    for path in (ROOT / "workflows").rglob("*.py"):
        room = path.relative_to(ROOT / "workflows").with_suffix("").parts[0]
        names = (name.split(".")[1:2] for name in imports_of(path) if name.startswith("workflows."))
        for other in {name for (name,) in names} - {room} if room != "__init__" else ():
            assert floor[other] > floor[room], f"{path.relative_to(ROOT)} imports workflows.{other}"


def test_every_package_is_installed():
    import tomllib

    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    assert sorted(listed) == sorted({".".join(p.relative_to(ROOT).parent.parts) for p in modules()})


def test_the_command_line_loads_nothing_heavy():
    code = "import workflows.cli, workflows.engine.plan, workflows.engine.run, sys; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert not {"torch", "ray", "mlflow", "nvidia.dali", "pandas", "pyarrow"} & set(loaded.stdout.split())
