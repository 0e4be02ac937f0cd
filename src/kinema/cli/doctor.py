"""Checks the installation: packages, device, arithmetic, attention, video files and the shipped model."""

import argparse
import importlib.util
import platform
import re
import sys
import tempfile
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, distributions, requires, version
from pathlib import Path

import kinema
from kinema.terminal import table

OK, NOTE, FAIL = "ok", "note", "FAIL"
Finding = tuple[str, str]  # (OK, NOTE or FAIL; one line)
CONSTRAINTS = Path(kinema.__file__).parents[2] / "constraints.txt"  # there in a checkout only
MIN_PSNR_DB = 25.0


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


def device() -> Finding:
    """The device that is used by default, tested by a matrix product."""
    import torch

    from kinema.device import available, describe_device, pick_device

    here = pick_device()
    ones = torch.ones(64, 64, device=here)
    if (ones @ ones).sum().item() != 64**3:
        return FAIL, f"{describe_device(here)} multiplies matrices wrongly"
    return OK, f"{describe_device(here)} (available: {', '.join(available())})"


def arithmetic() -> Finding:
    """Whether bfloat16 is fast on the device."""
    from kinema.device import has_fast_bf16, pick_device

    if has_fast_bf16(pick_device()):
        return OK, "bfloat16 is fast here and used where it is safe"
    return OK, "bfloat16 is emulated here, so float32 is used"


def attention() -> Finding:
    """Compares the package's attention with an explicit softmax."""
    import torch

    from kinema.device import pick_device
    from kinema.nn.attention import attend

    q, k, v = torch.randn(3, 24, 2, 16, generator=torch.Generator().manual_seed(0)).to(pick_device())
    weights = torch.einsum("nkd,mkd->knm", q, k).div(16**0.5).softmax(-1)
    error = (attend(q, k, v, (24,), (24,)) - torch.einsum("knm,mkd->nkd", weights, v)).abs().max().item()
    name = "PyTorch's scaled_dot_product_attention"
    return (OK, name) if error < 1e-2 else (FAIL, f"{name} is off by {error:.2g}")


def video() -> Finding:
    """Writes a clip as mp4 and reads it back."""
    import numpy as np

    from kinema.models.pixels import frames_psnr
    from kinema.video import Video

    f, h, w = np.ogrid[:9, :64, :64]
    frames = (
        np.stack([(4 * h + 0 * w + 8 * f), (4 * w + 0 * h + 0 * f), 128 + 0 * (f + h + w)], axis=-1)
        .clip(0, 255)
        .astype(np.uint8)
    )
    with tempfile.TemporaryDirectory() as folder:
        read = Video.read(Video(frames, fps=8.0).save(Path(folder) / "clip.mp4"))
    if read.frames.shape != frames.shape:
        return FAIL, f"wrote {frames.shape} (f, h, w, 3), read {read.frames.shape}"
    psnr_db = frames_psnr(read.frames, frames)
    line = f"9 frames written as mp4 and read back at {psnr_db:.0f} dB"
    return (OK, line) if psnr_db >= MIN_PSNR_DB else (FAIL, line)


def model() -> Finding:
    """Verifies the hashes of the model in the package."""
    from kinema.checkpoints.manifest import load_manifest, model_hash, verify_hashes
    from kinema.checkpoints.shipped import shipped_model

    num_files = verify_hashes(shipped_model())
    return (
        OK,
        f"{load_manifest(shipped_model()).name} {model_hash(shipped_model())}, "
        f"{num_files} files as they were written",
    )


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
    "device": device,
    "arithmetic": arithmetic,
    "attention": attention,
    "video": video,
    "model": model,
}
