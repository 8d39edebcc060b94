"""Imports of the whole tree: from the top floor down, in no circle, and only of what pyproject.toml declares."""

import ast
import sys
import tomllib
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
# From the ground up. Rooms of one floor know nothing of one another.
FLOORS = [
    ("feature_extraction",),
    ("modeling_mbt",),
    ("mbt_speech",),  # arguments, run_arguments, command_line, presets
    ("mbt_speech.corpora", "mbt_speech.inference"),
    ("mbt_speech.data",),
    ("mbt_speech.probing",),
    ("mbt_speech.training",),
    ("mbt_speech.reports",),
    ("run_pretrain", "run_finetune"),
    ("mbt_speech.experiments", "mbt_speech.__main__", "demo", "examples"),
    ("benchmarks",),
    ("tests",),
]
FLOOR_OF = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
SHIPPED = ("feature_extraction", "modeling_mbt")


def read_modules() -> dict[str, Path]:
    """Maps the name of every module to its file."""
    paths = [path for room in FLOOR_OF if "." not in room for path in (ROOT / room).rglob("*.py")]
    paths += ROOT.glob("*.py")
    parts = {path: path.relative_to(ROOT).with_suffix("").parts for path in sorted(paths)}
    return {".".join(names[:-1] if names[-1] == "__init__" else names): path for path, names in parts.items()}


MODULES = read_modules()


def imports_of(module: str) -> Iterator[str]:
    """Returns what a module imports, anywhere in it: modules of ours in full, others as they are written."""
    package = module if MODULES[module].name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            source = ".".join([*above, *([node.module] if node.module else [])])
            names = [f"{source}.{alias.name}" for alias in node.names]
            yield from (name if name in MODULES else source for name in names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("importlib.import_module", "require"):
            yield from (word.value for word in node.args[:1] if isinstance(word, ast.Constant))


IMPORTS = {module: set(imports_of(module)) for module in MODULES}


def room_of(module: str) -> str | None:
    """Returns the room that a module is in; None of what is not ours."""
    names = module.split(".")
    rooms = [".".join(names[:length]) for length in range(len(names), 0, -1)]
    return next((room for room in rooms if room in FLOOR_OF), None)


def test_no_import_runs_up_or_sideways():
    wrong = []
    for module, imported in IMPORTS.items():
        here = room_of(module)
        assert here is not None, f"{module} is in no room of FLOORS"
        for name in imported:
            there = room_of(name)
            if there not in (None, here) and FLOOR_OF[there] >= FLOOR_OF[here]:
                wrong.append(f"{module} imports {name}")
    assert wrong == []


def test_no_modules_import_one_another_in_a_circle():
    graph = {module: {name for name in names if name in MODULES} - {module} for module, names in IMPORTS.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" <- ".join(error.args[1]))


def test_only_the_index_of_the_models_meets_the_extractor():
    meeting = {module for module in IMPORTS if room_of(module) == "modeling_mbt"}
    meeting = {module for module in meeting for name in IMPORTS[module] if room_of(name) == "feature_extraction"}
    assert meeting == {"modeling_mbt"}


@pytest.mark.parametrize("package", SHIPPED)
def test_what_ships_takes_neither_data_nor_launchers_nor_pictures(package):
    found = {name.split(".")[0] for module in IMPORTS if room_of(module) == package for name in IMPORTS[module]}
    assert not found & {"datasets", "accelerate", "matplotlib", "mbt_speech"}


def declared(*extras: str) -> set[str]:
    """Returns the distributions that pyproject.toml declares, as dependencies or in some extras."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lists = [project["dependencies"], *(project["optional-dependencies"][extra] for extra in extras)]
    return {canonicalize_name(Requirement(line).name) for lines in lists for line in lines}


def undeclared(rooms: set[str], *extras: str) -> set[str]:
    """Returns the imports of some rooms that no distribution of `declared(*extras)` brings."""
    brings, known = packages_distributions(), declared(*extras)
    found = {name.split(".")[0] for module in IMPORTS if room_of(module) in rooms for name in IMPORTS[module]}
    found -= {*sys.stdlib_module_names, *(room.split(".")[0] for room in FLOOR_OF)}
    return {name for name in found if not known & set(map(canonicalize_name, brings.get(name, [name])))}


def test_every_import_is_declared():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    assert undeclared(set(FLOOR_OF), *extras) == set()


def test_opening_a_checkpoint_takes_no_extra():
    # For m4a files, tables, ONNX and MTEB: imported where they are needed, or a sentence says what to install.
    when_needed = {"torchcodec", "pandas", "pyarrow", "onnx", "onnxruntime", "onnxscript", "mteb", "datasets"}
    assert undeclared({*SHIPPED, "mbt_speech.inference", "mbt_speech.__main__"}) == when_needed


def test_code_that_goes_to_the_hub_imports_its_siblings_and_what_transformers_needs():
    shipped = {module for module in MODULES if room_of(module) == "modeling_mbt"} - {"modeling_mbt"}
    shipped |= {"feature_extraction.feature_extraction_mbt", "feature_extraction.spectrogram_mbt"}
    for module in shipped:
        foreign = {name.split(".")[0] for name in IMPORTS[module] if name not in MODULES} - sys.stdlib_module_names
        assert foreign <= {"torch", "numpy", "transformers", "huggingface_hub"}, module
        assert {name for name in IMPORTS[module] if name in MODULES} <= shipped
