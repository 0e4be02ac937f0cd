"""A tiny model with the vocabulary of a stage, an untrained oracle, and readings that equal the truth."""

import dataclasses

import numpy as np
import pytest
import torch

from kinema.checkpoints.components import load_backbone, load_clip, load_vae, save_component
from kinema.checkpoints.folders import save_model
from kinema.checkpoints.manifest import load_manifest
from kinema.config import to_dict
from kinema.models.oracle import Oracle, OracleConfig, Reading
from kinema.worlds.stage import StageConfig, StageWorld

STAGE = StageConfig(
    nouns=8,
    verbs=("roll", "bounce", "fall", "drive", "walk", "fly", "rise"),
    max_objects=1,
    cameras=("still",),
)


@pytest.fixture(scope="session")
def stage() -> StageWorld:
    return StageWorld(STAGE)


@pytest.fixture(scope="session")
def stage_model(model_folder, tmp_path_factory):
    """The tiny random model, said to have been trained on a small stage."""
    folder = tmp_path_factory.mktemp("stage") / "tiny"
    manifest = dataclasses.replace(
        load_manifest(model_folder),
        vocabulary=StageWorld(STAGE).vocabulary,
        card={"dit": {"recipe": {"world": {"name": "stage", **to_dict(STAGE)}}}},
        sha256={},
    )
    save_model(
        folder,
        load_backbone(model_folder),
        load_vae(model_folder),
        load_clip(model_folder),
        manifest,
        dtype=torch.float32,
    )
    return folder


@pytest.fixture(scope="session")
def untrained_oracle(tmp_path_factory):
    """The folder of an oracle that has seen nothing."""
    torch.manual_seed(0)
    slots = StageWorld(STAGE).slots
    folder = tmp_path_factory.mktemp("oracle") / "untrained"
    save_component(folder, Oracle(OracleConfig(slots, width=8, short_side_px=32)), dtype=torch.bfloat16)
    return folder


@pytest.fixture(scope="session")
def read_truth():
    """A function that reads a truth without fault."""

    def read(truth) -> Reading:
        tracks = truth["objects"][0]["tracks"]
        columns = {name: np.array(tracks[name])[:, None] for name in ("x", "y", "size", "visible")}
        return Reading({slot: str(truth[slot]) for slot in StageWorld(STAGE).slots}, **columns)

    return read
