"""The direction of imports: each floor may use the floors below it, and rooms of one floor do not know each other."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

HOUSE = Path(__file__).resolve().parent.parent
FLOORS = (
    {"errors"},
    {"recipe", "tables"},
    {"dicom", "metrics"},
    {"intake", "model", "training"},
    {"scoring"},
    {"data"},
    {"evaluation"},
    {"verb"},
    {"cli"},
)
ROOMS = set().union(*FLOORS)
MAY_IMPORT = {room: {room}.union(*FLOORS[:level]) for level, floor in enumerate(FLOORS) for room in floor} | {
    "verb": set().union(*FLOORS[:7]),
    "dicom": {"dicom", "errors"},
}
FILES = sorted([*(HOUSE / "engine").rglob("*.py"), *(HOUSE / "mmclip_cli").rglob("*.py")])


def place(module):
    """The place in the house of a module of ours; None for the door, engine/__init__.py, which imports lazily."""
    first, *rest = module.split(".")
    if first == "mmclip_cli":
        return "cli"
    if not rest:
        return None
    return rest[0] if rest[0] in ROOMS else "verb"


def module_name(path):
    parts = path.relative_to(HOUSE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(path):
    """(line, module, whether it is imported with the file) of every import; `from engine.data import store` gives engine.data.store."""
    tree = ast.parse(path.read_text("utf-8"))
    inner = {id(each) for function in ast.walk(tree) if isinstance(function, ast.FunctionDef | ast.Lambda) for each in ast.walk(function)}
    inner |= {
        id(each)
        for branch in ast.walk(tree)
        if isinstance(branch, ast.If) and ast.unparse(branch.test).endswith("TYPE_CHECKING")
        for each in ast.walk(branch)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name, id(node) not in inner) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path.name}:{node.lineno}: relative import"
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                is_module = (HOUSE / Path(*whole.split("."))).is_dir() or (HOUSE / Path(*whole.split("."))).with_suffix(".py").is_file()
                yield node.lineno, whole if is_module else node.module, id(node) not in inner


def test_the_house_has_every_place():
    assert {place(module_name(path)) for path in FILES} >= MAY_IMPORT.keys()


def ours():
    """(file, its place, line, imported module of ours, whether it is imported with the file), of every import."""
    for path in FILES:
        if (here := place(module_name(path))) is not None:
            for line, module, with_the_file in imported(path):
                if module.split(".")[0] in ("engine", "mmclip_cli") and module != module_name(path):
                    yield path, here, line, module, with_the_file


def test_imports_point_down():
    assert [
        f"{path.relative_to(HOUSE)}:{line}: {module}" for path, here, line, module, _ in ours() if place(module) not in MAY_IMPORT[here]
    ] == []


def test_no_module_imports_itself_over_others():
    """No circles, imports for types and in functions included."""
    graph = {module_name(path): set() for path in FILES}
    for path, _, _, module, _ in ours():
        graph[module_name(path)].add(module)
    while free := [name for name, needs in graph.items() if not needs & graph.keys()]:
        for name in free:
            del graph[name]
    assert sorted(graph) == []


def test_the_engine_never_prints_or_exits():
    wrong = {"print", "input", "exit", "quit", "sys.exit", "sys.stdout.write", "sys.stderr.write"}
    for path in FILES:
        if "mmclip_cli" in path.parts:
            continue
        calls = {ast.unparse(node.func) for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.Call)}
        assert not calls & wrong, path
        assert not {module.split(".")[0] for _, module, _ in imported(path)} & {
            "typer",
            "click",
            "rich",
            "tqdm",
            "argparse",
            "torchvision",
        }, path


def packages(path):
    """Top-level packages that are imported with the file."""
    return {module.split(".")[0] for _, module, with_the_file in imported(path) if with_the_file}


def test_parsers_of_strangers_files_stay_where_they_belong():
    at_home = ("engine.dicom", "engine.intake", "engine.data.entities")
    for path in FILES:
        if not module_name(path).startswith(at_home):
            assert not packages(path) & {"pydicom", "imagecodecs", "spacy", "scispacy", "SimpleITK"}, path


def test_nothing_that_reads_or_explains_imports_torch():
    for path in FILES:
        if place(module_name(path)) in ("dicom", "intake", "tables", "recipe", "errors", "cli"):
            assert not packages(path) & {"torch", "transformers"}, path


def loaded_after(code):
    """Names of the top-level packages that a fresh interpreter holds after running the code."""
    script = f"import sys\n{code}\nprint(*{{name.split('.')[0] for name in sys.modules}})"
    return set(subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True, timeout=60).stdout.split())


HEAVY = {"torch", "transformers", "polars", "pydantic", "pydicom", "spacy", "numpy", "yaml"}


@pytest.mark.parametrize(
    ("code", "absent"),
    [
        ("import engine; dir(engine)", HEAVY),
        ("from mmclip_cli.app import _register; _register()", HEAVY | {"tqdm", "rich"}),
        ("import engine.recipe", {"torch", "transformers", "polars", "pydicom", "spacy"}),
        ("from engine.model.bundle import shipped_models; shipped_models()", {"torch", "transformers", "polars", "pydicom", "spacy"}),
        ("import engine.model.mmclip, engine.training.loop", {"polars", "pydicom", "spacy", "imagecodecs"}),
        ("import engine.intake.workers", {"torch", "transformers", "spacy"}),
    ],
)
def test_what_an_import_does_not_bring_along(code, absent):
    assert not loaded_after(code) & absent


def test_engine_gives_its_verbs_and_its_model():
    import engine

    assert callable(engine.pretrain.pretrain)
    assert callable(engine.MMCLIPModel.from_pretrained)
    assert {"MMCLIPModel", "pretrain", "score"} <= set(dir(engine))
    with pytest.raises(AttributeError, match="no attribute 'evalute'"):
        _ = engine.evalute
