"""An adapter is trained on a released model by the loop of every other task."""

from pathlib import Path

import pytest
import torch

from kinema.checkpoints.adapters import LoRAFile, LoRALinear
from kinema.checkpoints.components import load_backbone
from kinema.checkpoints.manifest import load_card
from kinema.checkpoints.shipped import shipped_model
from kinema.errors import ConfigError
from kinema.generation.loading import load
from kinema.models.dit import DiT
from kinema.training import load_task, train

RECIPE = Path(__file__).parents[3] / "recipes" / "lora_tiny.toml"
QUICK = (
    "run.steps=2",
    "run.save_every=2",
    "run.sample_every=2",
    "run.log_every=1",
    "data.num_clips=3",
    "data.num_images=3",
    "defaults.steps=2",
)


def test_an_adapter_is_trained_written_and_applied(tmp_path):
    task = load_task(RECIPE, assignments=[*QUICK, "periods=[{until=1.0, batch=2, latent_frames=1}]"])
    assert isinstance(task.model, DiT)
    base = load_backbone(shipped_model())
    frozen = {name: tensor.clone() for name, tensor in task.model.state_dict().items() if ".base." in name}
    assert train(task, tmp_path / "run")
    assert all(torch.equal(task.model.state_dict()[name], tensor) for name, tensor in frozen.items())
    assert any(module.up.abs().max() > 0 for module in task.model.modules() if isinstance(module, LoRALinear))
    export = tmp_path / "run" / "export"
    assert load_card(export)["rank"] == 2
    pipeline = load(loras=[LoRAFile(export / "lora.safetensors")])
    assert pipeline.model_hash != load().model_hash
    changed = [
        name
        for name, tensor in pipeline.denoiser.backbones["high"].state_dict().items()
        if not torch.equal(tensor, base.state_dict()[name])
    ]
    assert len(changed) == 10 * base.config.num_layers


def test_muon_trains_the_matrices_of_an_adapter(tmp_path):
    settings = [*QUICK, "periods=[{until=1.0, batch=2, latent_frames=1}]", "optimizer.name=muon"]
    task = load_task(RECIPE, assignments=settings)
    assert train(task, tmp_path / "run")
    assert any(module.up.abs().max() > 0 for module in task.model.modules() if isinstance(module, LoRALinear))


def test_settings_that_the_base_determines_are_refused():
    for setting in ("vae=shipped", "model.d=24", "pack.tokens=64"):
        with pytest.raises(ConfigError, match="does not apply to a run on"):
            load_task(RECIPE, assignments=[setting])
    with pytest.raises(ConfigError, match="was trained with 'velocity'"):
        load_task(RECIPE, assignments=["diffusion.prediction=noise"])
