"""The house: what `docs/architecture.md` says of it, held against the code."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import sam_nb

PACKAGE = Path(sam_nb.__file__).parent
WINGS = ("weights", "networks", "model", "canvas", "files", "learning", "datasets")
MAX_MODULES, MAX_METHODS, MAX_LINES = 12, 25, 45

# What a wing may import beside itself; everything may import the root, and the root nothing else.
BELOW = {
    "": set(),
    "weights": set(),
    "networks": set(),
    "model": {"networks", "weights"},
    "canvas": {"model"},
    "files": {"model", "networks", "weights"},
    "learning": {"model", "weights"},
    "datasets": {"files"},
}

# Libraries that take long to import, or that only one place should know, and the modules that import them.
DOORS = {
    "torch": {
        *(f"learning.{name}" for name in ("decoder_step", "examples", "finetuning", "losses", "unet")),
        *(f"model.{name}" for name in ("embeddings", "everything", "loading", "onnx_export", "sam")),
        *(
            f"networks.{name}"
            for name in ("efficientnet", "fast_decoder", "fast_encoder", "internals", "lite", "tiny_vit")
        ),
        *("files.folder", "files.folder_image", "weights.weights_file"),
    },
    "torchvision": {"model.everything"},
    "segment_anything": {"model.sam", "networks.upstream"},
    "PIL": {"canvas.layers", "datasets.layouts", "files.png", "images", "model.closer", "model.sam"},
    "skimage": {"images"},
    "cv2": {
        *("canvas.layers", "clicks", "draw", "images", "rasterize"),
        *("files.polygons", "learning.examples", "learning.synthetic"),
    },
    "scipy": {"files.polygons"},
    "matplotlib": {"figures"},
    "requests": {"images", "weights.download"},
    "anywidget": {"canvas.pointer"},
    "pycocotools": {"files.coco"},
    "yaml": {"datasets.layouts"},
    "distributed": {"files.folder_cluster"},
    "IPython": {"canvas.cell", "canvas.fallback"},
    "ipycanvas": {"canvas.layers"},
    "ipywidgets": {f"canvas.{name}" for name in ("cell", "controls", "layers", "play", "pointer", "status", "widget")},
    "platformdirs": {"storage"},
    "filelock": {"storage"},
    "onnx": {"model.onnx_export"},
}


def name_of(path):
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts)


PATHS = {name_of(path): path for path in sorted(PACKAGE.rglob("*.py")) if path.stem != "__init__"}
MODULES = list(PATHS)
every_module = pytest.mark.parametrize("module", MODULES)


def tree_of(module):
    return ast.parse(PATHS[module].read_text(encoding="utf-8"))


def wing_of(module):
    return module.rpartition(".")[0]


def for_annotations(node):
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


def imports(module):
    """Return the full names of everything a module imports when it runs, anywhere in it."""
    names, waiting = set(), [tree_of(module)]
    while waiting:
        node = waiting.pop()
        if for_annotations(node):
            continue
        waiting += ast.iter_child_nodes(node)
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            # From a folder modules are imported, from a module its names.
            is_folder = node.module in ("sam_nb", *(f"sam_nb.{wing}" for wing in WINGS))
            names |= {f"{node.module}.{alias.name}" for alias in node.names} if is_folder else {node.module}
    return names


def inside(module):
    """Return the package's modules that a module imports, the front door's names left aside."""
    names = {name.removeprefix("sam_nb.") for name in imports(module) if name.startswith("sam_nb.")}
    return names - set(sam_nb.__all__)


def rows():
    """Return the modules in the order of the tables in `docs/architecture.md`."""
    text = (PACKAGE.parent / "docs" / "architecture.md").read_text(encoding="utf-8")
    found = []
    for folder, table in re.findall(r"^### `sam_nb/(\w*)/?`.*?\n(.*?)(?=^#|\Z)", text, re.MULTILINE | re.DOTALL):
        found += [f"{folder}.{name}".lstrip(".") for name in re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)]
    return found


def test_every_module_has_a_row():
    assert sorted(rows()) == sorted(MODULES)


@every_module
def test_a_module_imports_only_modules_above_it(module):
    above = rows()[: rows().index(module)]
    assert inside(module) <= set(above)


@every_module
def test_a_wing_imports_no_sibling(module):
    wing = wing_of(module)
    assert {wing_of(name) for name in inside(module)} <= {"", wing, *BELOW[wing]}


def test_the_rule_is_not_blind():
    assert "masks" in inside("session")
    assert "model.sam" in inside("model.loading")
    assert "files" not in {wing_of(name) for name in inside("canvas.widget")}


@pytest.mark.parametrize("wing", ["", *WINGS])
def test_no_wing_is_crowded(wing):
    modules = [module for module in MODULES if wing_of(module) == wing]
    assert 0 < len(modules) <= MAX_MODULES


def test_wings_are_folders_and_nothing_else():
    assert {wing_of(module) for module in MODULES} == {"", *WINGS}
    assert all((PACKAGE / wing / "__init__.py").read_bytes() == b"" for wing in WINGS)


@every_module
def test_classes_and_functions_are_small(module):
    for node in ast.walk(tree_of(module)):
        if isinstance(node, ast.ClassDef):
            methods = [part for part in node.body if isinstance(part, ast.FunctionDef)]
            is_property = [any("property" in ast.unparse(mark) for mark in part.decorator_list) for part in methods]
            assert len(methods) - sum(is_property) <= MAX_METHODS, node.name
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[1] if ast.get_docstring(node) and len(node.body) > 1 else node.body[0]
            assert node.end_lineno - first.lineno + 1 <= MAX_LINES, node.name


@every_module
def test_every_public_function_is_annotated(module):
    for node in ast.walk(tree_of(module)):
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            bare = [each.arg for each in arguments if each.annotation is None and each.arg not in ("self", "cls")]
            assert not bare, f"{node.name}: {bare}"
            assert node.returns is not None, node.name


@pytest.mark.parametrize("library", DOORS)
def test_a_heavy_library_enters_by_its_door(library):
    users = {module for module in MODULES if any(name.split(".")[0] == library for name in imports(module))}
    assert users == DOORS[library]


def loaded_by(statement):
    """Return the top names of what a fresh interpreter has loaded after a statement."""
    code = f"import sys; {statement}; print(*{{name.split('.')[0] for name in sys.modules}})"
    return set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())


HEAVY = {"torch", "torchvision", "matplotlib", "cv2", "skimage", "scipy", "pycocotools", "ipywidgets", "requests"}


@pytest.mark.parametrize(
    "statement",
    ["import sam_nb; sam_nb.Prompt, sam_nb.load_image", "import sam_nb.session", "import sam_nb.masks, sam_nb.prompts"],
)
def test_values_and_the_session_load_nothing_heavy(statement):
    loaded = loaded_by(statement)
    assert "numpy" in loaded  # the list is a real one
    assert not HEAVY & loaded


# What a first mask must not wait for: 5 of 10 seconds went by importing torchvision, for `SamPredictor`.
FIRST_MASK = """
import sys
from sam_nb import load_sam, load_image, Prompt, show
assert not {"torchvision", "torch._dynamo"} & set(sys.modules)
import segment_anything
assert segment_anything.modeling.Sam.__module__ == "segment_anything.modeling.sam"
assert "torchvision" not in sys.modules
from segment_anything import SamPredictor, sam_model_registry
assert "torchvision" in sys.modules
assert segment_anything.SamPredictor is SamPredictor and "SamPredictor" in dir(segment_anything)
from segment_anything.modeling import Sam
assert isinstance(load_sam("lite").model, Sam)
try:
    segment_anything.SamPredicter
except AttributeError as error:
    print(error)
"""


def test_segment_anything_waits_with_torchvision_until_it_is_needed():
    done = subprocess.run([sys.executable, "-c", FIRST_MASK], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("module 'segment_anything' has no attribute 'SamPredicter'\n")


# torchvision that cannot be imported is reported each time, and not hidden behind a half-made package.
BROKEN = """
import sys
import sam_nb.model.sam
import sam_nb.networks.upstream
sys.modules["torchvision"] = None
for _ in range(2):
    try:
        from segment_anything import SamPredictor
    except ImportError as error:
        print(error)
del sys.modules["torchvision"]
from segment_anything import SamPredictor
"""


def test_a_broken_torchvision_is_reported():
    done = subprocess.run([sys.executable, "-c", BROKEN], capture_output=True, text=True, check=True)
    assert done.stdout.count("No module named") == 2


def test_public_names_resolve_and_are_listed():
    for name in sam_nb.__all__:
        assert getattr(sam_nb, name) is not None
        assert name in dir(sam_nb)
    with pytest.raises(AttributeError, match=r"has no attribute 'load_sma'; it has .*load_sam"):
        sam_nb.load_sma  # noqa: B018


def test_editors_see_the_same_front_door():
    """`__init__.pyi` says where each public name is from, as the lazy table does."""
    stub = ast.parse((PACKAGE / "__init__.pyi").read_text(encoding="utf-8"))
    seen = {}
    for node in stub.body:
        if isinstance(node, ast.ImportFrom):
            seen |= {alias.name: node.module.removeprefix("sam_nb.") for alias in node.names}
            assert all(alias.asname == alias.name for alias in node.names)  # else it is no re-export
    assert seen == sam_nb._HOME
    assert sam_nb.__all__ == sorted(sam_nb._HOME)
    assert (PACKAGE / "py.typed").exists()


@every_module
def test_no_assert_and_no_stray_print(module):
    """A user's mistake gets an error; the only prints are what `load_sam` and `download` say, and `score`."""
    tree = tree_of(module)
    prints = [n for n in ast.walk(tree) if isinstance(n, ast.Call) and getattr(n.func, "id", "") == "print"]
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.Assert)]
    assert len(prints) == (1 if module in {"model.loading", "weights.download", "figures"} else 0)
