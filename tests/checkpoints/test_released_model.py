"""A model folder that version 0.1.0 wrote, with random weights, and the frames that it generated from it."""

from pathlib import Path

import numpy as np

import kinema
from kinema.checkpoints.manifest import load_manifest, model_hash, verify_hashes

RELEASED = Path(__file__).parents[1] / "released" / "0.1.0"
MODEL = RELEASED / "model"


def test_a_model_of_0_1_0_verifies():
    manifest = load_manifest(MODEL)
    assert (manifest.min_side, manifest.max_side, manifest.side_multiple) == (16, 64, 16)
    assert (manifest.min_frames, manifest.max_frames) == (1, 17)
    assert manifest.card == {"steps": 3, "recipe": {"lr": 0.1, "name": None}}
    assert verify_hashes(MODEL) == len(manifest.sha256) == 9
    assert model_hash(MODEL) == "f96aa3e67313"


def test_a_model_of_0_1_0_generates_the_same_frames():
    options = {"width": 32, "height": 16, "frames": 5, "steps": 1, "seed": 3}
    pipeline = kinema.load(MODEL, device="cpu", precision="fp32")
    result = pipeline.run(kinema.Request("a ball rolls", **options))
    expected = np.load(RELEASED / "model_frames.npy")
    # CPUs round differently.
    assert np.abs(result.video.frames.astype(int) - expected).max() <= 1
    assert result.model_hash == model_hash(MODEL)
