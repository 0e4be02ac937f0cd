"""The rules of ARCHITECTURE.md that a machine can read off the source: who imports whom, who names a device,
who needs what.
"""

import ast
import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "src" / "kinema"
FILES = sorted(PACKAGE.rglob("*.py"))

# A file imports only from lines above its own, or from its own package. Names on one line do not import each
# other.
TABLE = (
    (PACKAGE.parents[1] / "ARCHITECTURE.md").read_text(encoding="utf-8").split("## Layers")[1].split("## ")[0]
)
LAYERS = [line.split() for line in re.findall(r"^    (.+)$", TABLE, re.MULTILINE)]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}

TRAINER_SIDE = {"worlds", "nn", "models", "diffusion", "data", "training"}
TRAINER_NEEDS = {"torch", "numpy", "einops", "safetensors", "PIL", "cv2"}
EXTRAS = {
    PACKAGE / "training" / "report.py": {"tensorboard"},
    PACKAGE / "data" / "dataset.py": {"pyarrow"},
}
MAY_BE_ABSENT_THERE = (
    "av",
    "rich",
    "pydantic",
    "jaxtyping",
    "beartype",
    "diffusers",
    "tensorboard",
    "pyarrow",
    "ray",
)
DEVICE_WORD = re.compile(r"(cuda|npu|mps|xpu|cpu)(:\d+)?")
DEVICE_MODULES = {"cuda", "npu", "mps", "xpu"}
POSIX_ONLY = {
    "fcntl",
    "resource",
    "termios",
    "tty",
    "pty",
    "pwd",
    "grp",
    "syslog",
    "posix",
    "curses",
    "readline",
    "crypt",
    "spwd",
    "nis",
}
"""Modules of the standard library that Windows lacks."""
WINDOWS_SIGNALS = {
    "SIGABRT",
    "SIGFPE",
    "SIGILL",
    "SIGINT",
    "SIGSEGV",
    "SIGTERM",
    "SIGBREAK",
    "SIG_DFL",
    "SIG_IGN",
}
POSIX_CALLS = {
    "fork",
    "sysconf",
    "sysconf_names",
    "geteuid",
    "getuid",
    "setsid",
    "killpg",
    "wait4",
    "umask",
    "nice",
}


@cache
def parsed(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"), filename=str(file))


def home(file: Path) -> str:
    """The name in LAYERS that a file belongs to: its package, or its own stem at the top."""
    return file.relative_to(PACKAGE).with_suffix("").parts[0]


def imports(tree: ast.AST, file: Path) -> Iterator[tuple[str, int]]:
    """(dotted name, line) of everything imported below `tree`; for `from x import y` both x and x.y."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            if node.level:
                parents = ("kinema", *file.relative_to(PACKAGE).parts)[: -node.level]
                module = ".".join((*parents, *filter(None, [module])))
            yield module, node.lineno
            yield from ((f"{module}.{alias.name}", node.lineno) for alias in node.names)


def own_imports(file: Path) -> set[tuple[str, int]]:
    """(name in LAYERS, line) of what a file imports from Kinema, inside functions too."""
    found = set()
    for name, line in imports(parsed(file), file):
        parts = name.split(".")
        if parts[0] == "kinema" and len(parts) > 1:
            is_module = (PACKAGE / parts[1]).is_dir() or (PACKAGE / f"{parts[1]}.py").is_file()
            found.add((parts[1] if is_module else "__init__", line))
    return found


def outside(file: Path, tree: ast.AST | None = None) -> set[str]:
    """Top-level names of the installed packages that a file imports."""
    names = {name.split(".")[0] for name, _ in imports(tree or parsed(file), file)}
    return names - set(sys.stdlib_module_names) - {"kinema"}


def of(*packages: str) -> list[Path]:
    """The files of these packages; data curation has needs of its own."""
    return [file for file in FILES if home(file) in packages and "curation" not in file.parts]


def test_every_file_has_a_layer():
    assert {home(file) for file in FILES} <= set(LEVEL)


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_a_file_imports_only_from_layers_above_its_own(file):
    own = home(file)
    wrong = [
        f"line {line}: {own} imports {name}"
        for name, line in sorted(own_imports(file))
        if name != own and LEVEL[name] >= LEVEL[own]
    ]
    assert not wrong


def test_the_rule_sees_a_lazy_import_and_a_relative_one():
    file = PACKAGE / "nn" / "made_up.py"
    tree = ast.parse(
        "def f():\n    from ..models import dit\n    import kinema.cli.main\nfrom . import rotary"
    )
    names = {name for name, _ in imports(tree, file)}
    assert {"kinema.models", "kinema.models.dit", "kinema.cli.main", "kinema.nn", "kinema.nn.rotary"} <= names


def test_only_device_py_names_devices():
    named = []
    for file in FILES:
        if file.name == "device.py" and file.parent == PACKAGE:
            continue
        for node in ast.walk(parsed(file)):
            is_word = (
                isinstance(node, ast.Constant)
                and isinstance(node.value, str)
                and DEVICE_WORD.fullmatch(node.value)
            )
            is_module = isinstance(node, ast.Attribute) and node.attr in DEVICE_MODULES
            if is_word or is_module:
                named.append(f"{file.relative_to(PACKAGE)}:{node.lineno}")
    assert not named


def test_only_video_imports_pyav():
    assert {home(file) for file in FILES if "av" in outside(file)} <= {"video"}


def test_the_trainer_side_imports_little():
    for file in of(*TRAINER_SIDE):
        if file not in EXTRAS:
            assert outside(file) <= TRAINER_NEEDS, file


@pytest.mark.parametrize("file", EXTRAS, ids=lambda file: file.name)
def test_extras_are_imported_only_inside_functions(file):
    at_the_top = ast.Module(
        [node for node in parsed(file).body if isinstance(node, (ast.Import, ast.ImportFrom))], []
    )
    assert outside(file, at_the_top) <= TRAINER_NEEDS
    assert outside(file) <= {*TRAINER_NEEDS, *EXTRAS[file]}


def test_only_one_file_imports_ray():
    assert [file.name for file in FILES if "ray" in outside(file)] == ["ray_engine.py"]


def test_the_trainer_side_runs_without_the_rest():
    modules = [
        ".".join(("kinema", *file.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__")
        for file in of(*TRAINER_SIDE)
    ]
    script = f"""
import importlib, sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {MAY_BE_ABSENT_THERE}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Absent())
for module in {modules}:
    importlib.import_module(module)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=with_source())
    assert done.returncode == 0, done.stderr


def test_every_module_is_imported_without_the_modules_that_windows_lacks():
    """Only imports by Kinema's own files are blocked: other packages have their own ways on Windows."""
    modules = [
        ".".join(("kinema", *file.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__")
        for file in FILES
        if file.name != "__main__.py"
    ]
    script = f"""
import builtins, importlib

original = builtins.__import__

def blocked(name, globals=None, locals=None, fromlist=(), level=0):
    importer = (globals or {{}}).get("__name__", "")
    if name.split(".")[0] in {POSIX_ONLY} and importer.split(".")[0] == "kinema":
        raise ModuleNotFoundError(f"{{importer}} imports {{name}}, which Windows lacks", name=name)
    return original(name, globals, locals, fromlist, level)

builtins.__import__ = blocked
for module in {modules}:
    importlib.import_module(module)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=with_source())
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_signals_and_system_calls_exist_on_windows(file):
    for node in ast.walk(parsed(file)):
        if not isinstance(node, ast.Attribute) or not isinstance(node.value, ast.Name):
            continue
        if node.value.id == "signal" and node.attr.startswith("SIG"):
            assert node.attr in WINDOWS_SIGNALS, f"line {node.lineno}: signal.{node.attr}"
        assert node.value.id != "os" or node.attr not in POSIX_CALLS, f"line {node.lineno}: os.{node.attr}"


def test_torchvision_is_absent_or_works():
    if importlib.util.find_spec("torchvision"):
        done = subprocess.run([sys.executable, "-c", "import torchvision"], capture_output=True, text=True)
        assert done.returncode == 0, (
            "a torchvision that does not fit torch breaks diffusers: pip uninstall torchvision\n"
            f"{done.stderr}"
        )


def with_source() -> dict[str, str]:
    """The environment of a child that finds Kinema whether or not it is installed."""
    return {**os.environ, "PYTHONPATH": str(PACKAGE.parent)}
