"""Compare the output of two checkouts bit for bit: every generation task, a tiny Wan model, and the tiny form
of every recipe.

    python tools/same_output.py OLD_CHECKOUT NEW_CHECKOUT --inputs DIR

Each checkout runs in its own processes, in float32 on one thread. The inputs (three clips, a storyboard, a
tiny Wan folder, a data set of three clips) are made once in DIR and shared, so that both checkouts read the
same bytes. A row is a SHA-256 of decoded frames or of exported tensors. Finished rows of a checkout are kept
in DIR, so that an interrupted comparison continues.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

SMALL = ("--size", "128x96", "--steps", "4", "--seed", "7", "--precision", "fp32")
TASKS = {
    "generate": ("generate", "a rocket rises into the night sky", "--frames", "17"),
    "generate, 41 frames in windows": ("generate", "a penguin walks", "--frames", "41"),
    "generate, guidance 1": ("generate", "a car drives", "--frames", "9", "--guidance", "1"),
    "generate, ddim": ("generate", "a car drives", "--frames", "9", "--sampler", "ddim"),
    "picture": ("generate", "a penguin walks", "--frames", "1"),
    "animate": ("generate", "a penguin walks", "--image", "first.png", "--frames", "17"),
    "extend forward": ("extend", "a.mkv", "--seconds", "1"),
    "extend backward": ("extend", "a.mkv", "--seconds", "1", "--direction", "backward"),
    "connect": ("connect", "a.mkv", "b.mkv", "--seconds", "1"),
    "loop": ("loop", "a rocket rises", "--seconds", "2"),
    "loop of a clip": ("loop", "a.mkv", "--seconds", "4"),
    "edit": ("edit", "a.mkv", "a rocket rises at night", "--strength", "0.6"),
    "edit of a region": ("edit", "a.mkv", "a balloon rises", "--strength", "1", "--region", "32,32,48,48"),
    "storyboard": ("storyboard", "board.yaml"),
}
WAN = (
    "--size",
    "64x64",
    "--frames",
    "9",
    "--steps",
    "3",
    "--seed",
    "7",
    "--precision",
    "fp32",
    "--beyond-trained",
)
RECIPES = {
    "vae": (),
    "clip": (),
    "dit": (),
    "lora": (),
    "oracle": (),
    "captioner": (),
    "expander": (),
    "dit_finetune": ("--data", "dataset", "--init-from", "shipped"),
    "lora_wan": ("--data", "wan_dataset", "--set", "base=WAN"),
    "wan": ("--data", "wan_dataset", "--set", "base=WAN"),
}

WAN_FOLDER = """
import sys
try:
    from tests.checkpoints.families.wan.wan_folders import peer
except ModuleNotFoundError:  # checkouts of 0.1.0
    from tests.wan_folders import peer
peer("2.1-t2v").save_pretrained(sys.argv[1], safe_serialization=True)
"""
FRAMES = """
import hashlib, sys
from kinema import Video
video = Video.read(sys.argv[1])
print(hashlib.sha256(repr(video.frames.shape).encode() + video.frames.tobytes()).hexdigest())
"""
TENSORS = """
import hashlib, pathlib, sys
from safetensors import safe_open
digest = hashlib.sha256()
for file in sorted(pathlib.Path(sys.argv[1]).rglob("*.safetensors")):
    with safe_open(file, "pt") as tensors:
        for name in sorted(tensors.keys()):
            digest.update(name.encode() + tensors.get_tensor(name).float().numpy().tobytes())
print(digest.hexdigest())
"""


def python(checkout: Path, cwd: Path, *arguments: str) -> str:
    """The standard output of `python ARGUMENTS` with the package of `checkout`.

    Raises `SystemExit` with its errors when it fails.
    """
    env = {
        **os.environ,
        "PYTHONPATH": f"{checkout / 'src'}{os.pathsep}{checkout}",
        "OMP_NUM_THREADS": "1",
        "OMP_WAIT_POLICY": "PASSIVE",
    }
    done = subprocess.run([sys.executable, *arguments], cwd=cwd, env=env, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{checkout.name}: {' '.join(arguments)[:200]}\n{done.stderr[-2000:]}")
    return done.stdout.strip()


def make_inputs(checkout: Path, folder: Path) -> None:
    """Write what the rows read into `folder`, with the package of `checkout`."""
    if (folder / "done").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    for name, prompt in (("a", "a rocket rises"), ("b", "a penguin walks")):
        python(
            checkout,
            folder,
            "-m",
            "kinema",
            "generate",
            prompt,
            "--frames",
            "17",
            *SMALL,
            "-o",
            f"{name}.mkv",
        )
    python(
        checkout,
        folder,
        "-m",
        "kinema",
        "generate",
        "a penguin walks",
        "--frames",
        "1",
        *SMALL,
        "-o",
        "first.png",
    )
    shots = [
        "{at: 0, prompt: 'a penguin walks', image: first.png}",
        "{at: 2, prompt: 'a penguin walks at night'}",
    ]
    (folder / "board.yaml").write_text("seconds: 4\nshots:\n" + "".join(f"  - {shot}\n" for shot in shots))
    clips = folder / "clips"
    clips.mkdir(exist_ok=True)
    for name, prompt in (("a", "a rocket rises"), ("b", "a penguin walks")):
        (clips / f"{name}.mkv").write_bytes((folder / f"{name}.mkv").read_bytes())
        (clips / f"{name}.txt").write_text(prompt)
    recipe = ("--set", "clips.min_frames=5", "--set", "licence=CC0")
    python(checkout, folder, "-m", "kinema", "data", "build", "clips", "-o", "dataset", *recipe)
    python(checkout, folder, "-c", WAN_FOLDER, "WAN")
    python(
        checkout,
        folder,
        "-m",
        "kinema",
        "data",
        "build",
        "clips",
        "-o",
        "wan_dataset",
        *recipe,
        "--set",
        "vae=WAN",
    )
    (folder / "done").write_text("")


def rows(checkout: Path, inputs: Path) -> dict[str, str]:
    """Digest by row name, of everything that `checkout` makes from `inputs`."""
    out = inputs / f"out-{hashlib.sha256(str(checkout).encode()).hexdigest()[:8]}"
    out.mkdir(exist_ok=True)
    kept = out / "rows.json"
    found: dict[str, str] = json.loads(kept.read_text()) if kept.exists() else {}

    def keep(name: str, digest: str) -> None:
        found[name] = digest
        kept.write_text(json.dumps(found, indent=1))
        print(f"{checkout.name}: {name}: {digest[:12]}", flush=True)

    for number, (name, arguments) in enumerate(TASKS.items()):
        if name not in found:
            path = out / f"{number}.mkv" if name != "picture" else out / f"{number}.png"
            python(checkout, inputs, "-m", "kinema", *arguments, *SMALL, "-o", str(path))
            keep(name, python(checkout, inputs, "-c", FRAMES, str(path)))
    if "Wan" not in found:
        path = out / "wan.mkv"
        python(
            checkout,
            inputs,
            "-m",
            "kinema",
            "generate",
            "a red fox runs",
            "--model",
            "WAN",
            *WAN,
            "-o",
            str(path),
        )
        keep("Wan", python(checkout, inputs, "-c", FRAMES, str(path)))
    for recipe, arguments in RECIPES.items():
        name = f"train {recipe}_tiny"
        if name not in found:
            run = out / recipe
            file = checkout / "recipes" / f"{recipe}_tiny.toml"
            python(
                checkout,
                inputs,
                "-m",
                "kinema",
                "train",
                str(file),
                "--steps",
                "4",
                "--out",
                str(run),
                *arguments,
            )
            keep(name, python(checkout, inputs, "-c", TENSORS, str(run / "export")))
    return found


def main() -> int:
    """Print the table and return 1 when a row differs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument("--inputs", type=Path, required=True)
    arguments = parser.parse_args()
    inputs = arguments.inputs.resolve()

    make_inputs(arguments.old.resolve(), inputs)
    old, new = rows(arguments.old.resolve(), inputs), rows(arguments.new.resolve(), inputs)

    print("| output | old | new | equal |\n|---|---|---|---|")
    for name in old:
        print(
            f"| {name} | {old[name][:12]} | {new[name][:12]} | {'yes' if old[name] == new[name] else 'NO'} |"
        )
    return int(old != new)


if __name__ == "__main__":
    sys.exit(main())
