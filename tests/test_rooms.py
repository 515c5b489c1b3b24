"""The order of the packages: a lower one never imports from a higher one."""

import ast
import re
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "bd_diff"
ORDER = [
    "assets",
    "blur",
    "data",
    "models",
    "reading",
    "stable_diffusion",
    "pipeline",
    "restore",
    "evaluation",
    "training",
    "baselines",
    "adaptation",
    "serving",
    "commands",
    "cli",
    "__main__",
]

# What is imported upwards by its name: the classes of saved baselines.
BASELINES = ("uresnet", "nafnet", "adarevd", "xdecode")
BY_NAME = {"restore.py": {f"bd_diff.baselines.{name}" for name in BASELINES}}


def room_of(module: str) -> str:
    return module.split(".")[1]


def imports(path: Path) -> set[str]:
    """The modules of this package that a file imports, anywhere in it, by statement or by a name in a string."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            found |= {f"bd_diff.{name.name}" for name in node.names} if node.module == "bd_diff" else {node.module}
        elif isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.Constant) and re.fullmatch(r"bd_diff(\.\w+)+", str(node.value)):
            found.add(node.value)
    assert not found & {"train", "tests"}
    return {module for module in found if module.startswith("bd_diff.") and module not in BY_NAME.get(path.name, ())}


def modules() -> list[Path]:
    found = [path for path in sorted(PACKAGE.rglob("*.py")) if path.name != "__init__.py" or path.parent != PACKAGE]
    return [path for path in found if path.parent.parent != PACKAGE / "assets"]  # a model folder's own code


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_imports_only_from_its_own_room_and_lower_ones(path):
    own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    for module in imports(path):
        room = room_of(module)
        if room == "__version__":
            continue
        if room in ("BDDiffPipeline", "BDDiffPipelineOutput"):
            room = "pipeline"
        assert ORDER.index(room) <= ORDER.index(own), f"{own} is below {room}, but imports {module}"


def test_every_package_has_its_place_in_the_order():
    rooms = {path.name.removesuffix(".py") for path in PACKAGE.iterdir() if path.suffix == ".py" or path.is_dir()}
    assert rooms - {"__init__", "__pycache__"} == set(ORDER)
