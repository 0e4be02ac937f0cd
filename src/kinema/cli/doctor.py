"""Checks the installation: packages, device, arithmetic, attention, video files and the shipped model."""

import argparse
import importlib.util
import platform
import re
import sys
from collections.abc import Callable
from functools import partial
from importlib.metadata import PackageNotFoundError, distributions, requires, version
from pathlib import Path

import kinema
from kinema.terminal import table

OK, NOTE, FAIL = "ok", "note", "FAIL"
Finding = tuple[str, str]  # (OK, NOTE or FAIL; one line)
CONSTRAINTS = Path(kinema.__file__).parents[2] / "constraints.txt"  # there in a checkout only


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the help of `kinema doctor`, which has no options."""
    parser.epilog = "Exits with 1 when a check fails."


def run(arguments: argparse.Namespace) -> int:
    """The exit code of `kinema doctor`: 1 when a check fails."""
    findings = {name: _find(check) for name, check in CHECKS.items()}
    print(table([(state, name, line) for name, (state, line) in findings.items()]))

    num_failed = sum(state == FAIL for state, _ in findings.values())
    if num_failed:
        print(f"\n{num_failed} of {len(findings)} checks failed")
    else:
        print(f"\nall {len(findings)} checks passed")
    return 1 if num_failed else 0


def _find(check: Callable[[], Finding]) -> Finding:
    """The finding of a check. Any exception is a failed check."""
    try:
        return check()
    except Exception as error:
        return FAIL, f"{type(error).__name__}: {' '.join(str(error).split()) or 'no message'}"


def python() -> Finding:
    """The version of Python."""
    line = f"{platform.python_version()} on {platform.platform(terse=True)}"
    return (OK, line) if sys.version_info >= (3, 11) else (FAIL, f"{line}; Kinema needs 3.11 or newer")


def packages() -> Finding:
    """The versions of the packages that Kinema requires."""
    try:
        needed = [
            re.split(r"[^\w.-]", line)[0] for line in requires("kinema") or () if "extra ==" not in line
        ]
    except PackageNotFoundError:
        return (
            FAIL,
            "Kinema runs from its source folder and is not installed: pip install -c constraints.txt -e .",
        )
    installed = {name: _version(name) for name in needed}
    missing = [name for name, found in installed.items() if found is None]
    if missing:
        return FAIL, f"{', '.join(missing)} missing: pip install {' '.join(missing)}"
    return OK, ", ".join(f"{name} {found}" for name, found in installed.items())


def extras() -> Finding:
    """The versions of optional packages."""
    names = ("diffusers", "tensorboard", "jaxtyping", "beartype", "pytest")
    return OK, ", ".join(f"{name} {_version(name) or 'absent'}" for name in names)


def torch_pin() -> Finding:
    """Compares torch with the version that the tests run with."""
    found = _version("torch")
    if not CONSTRAINTS.is_file():
        return OK, f"{found}"
    pinned = re.search(r"^torch==(\S+)", CONSTRAINTS.read_text(encoding="utf-8"), re.MULTILINE)
    if pinned is None or found is None or found.split("+")[0] == pinned[1]:
        return OK, f"{found}, as in constraints.txt"
    return NOTE, f"{found} is installed, {pinned[1]} is what is tested: pip install -c constraints.txt -e ."


def torchvision() -> Finding:
    """A torchvision that does not fit torch makes diffusers fail with a message that does not name it."""
    if importlib.util.find_spec("torchvision") is None:
        return OK, "absent, and not needed"
    try:
        importlib.import_module("torchvision")
    except Exception:
        return (
            FAIL,
            f"{_version('torchvision')} does not fit torch {_version('torch')} and breaks diffusers: "
            "pip uninstall torchvision",
        )
    return OK, f"{_version('torchvision')}, not needed"


def opencv() -> Finding:
    """Two OpenCV wheels write into one folder, so that removing either breaks both."""
    import cv2

    wheels = sorted(
        {
            d.name
            for d in distributions()
            if re.match(r"opencv[-_](contrib[-_])?python", d.name or "", re.IGNORECASE)
        }
    )
    if len(wheels) > 1:
        return (
            FAIL,
            f"{' and '.join(wheels)} overwrite each other: "
            "uninstall all, then install opencv-python-headless",
        )
    return OK, f"{cv2.__version__} from {wheels[0] if wheels else 'outside pip'}"


def _machine_check(name: str) -> Finding:
    """A check of `kinema.cli.machine_checks`, which imports torch."""
    from kinema.cli.machine_checks import MACHINE_CHECKS

    return MACHINE_CHECKS[name]()


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


CHECKS: dict[str, Callable[[], Finding]] = {
    "python": python,
    "packages": packages,
    "extras": extras,
    "torch": torch_pin,
    "torchvision": torchvision,
    "opencv": opencv,
    **{
        name: partial(_machine_check, name)
        for name in ("device", "arithmetic", "attention", "video", "model")
    },
}
