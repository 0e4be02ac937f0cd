"""Every text encoder, and one that the package does not know: its states are packed and stored, a backbone is
trained on them, and the exported model finds it again.
"""

from pathlib import Path

import pytest
import torch
from tests.checkpoints.text_encoder_folders import save_text_encoder_folder
from tests.seams import toy_text_encoder

from kinema.checkpoints.components import load_backbone, load_clip, save_component
from kinema.checkpoints.folders import resolve_model
from kinema.checkpoints.manifest import verify_hashes
from kinema.checkpoints.text_encoders import load_text_encoder, text_source
from kinema.data.shard_cache import ShardCache
from kinema.data.text_states import TextCache
from kinema.errors import ConfigError
from kinema.generation.loading import load
from kinema.generation.request import Request
from kinema.models.clip import CLIP, CLIPConfig
from kinema.models.conditioning import TextEncoder
from kinema.prompts.bpe_tokenizer import BPETokenizer
from kinema.training import load_task, train
from kinema.worlds import WorldConfig, make_world

RECIPE = Path(__file__).parents[2] / "recipes" / "dit_tiny.toml"
KINDS = ("clip", "bpe", "t5", "clip_hf", "llm", "toy")
PROMPTS = ["a red fox runs", "", "a blue ball rolls slowly across the meadow"]
QUICK = (
    "run.save_every=2",
    "run.sample_every=2",
    "run.log_every=1",
    "model.d=24",
    "model.num_heads=2",
    "model.ffn_dim=32",
    "data.num_clips=4",
    "data.num_images=4",
    "periods=[{until=1.0, batch=2, latent_frames=2}]",
    "defaults.steps=2",
)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("encoders")


@pytest.fixture(params=KINDS)
def encoder(request, home, monkeypatch):
    """(kind, setting of the recipe, folder) of an encoder."""
    kind, folder = request.param, home / request.param
    toy_text_encoder.register(monkeypatch)
    if kind == "clip":
        return kind, "clip=shipped", resolve_model("shipped")
    if not folder.exists():
        if kind == "bpe":
            tokenizer = BPETokenizer.train(make_world(WorldConfig()).words, max_length=96)
            sizes = {"text_width": 16, "text_layers": 1, "text_heads": 2, "embed_dim": 16}
            config = CLIPConfig(len(tokenizer), video_width=16, video_layers=1, video_heads=2, **sizes)
            save_component(folder, CLIP(config, tokenizer))
        elif kind == "toy":
            toy_text_encoder.save(folder, 12)
        else:
            pytest.importorskip("transformers")
            save_text_encoder_folder(folder, kind)
    return kind, f"clip={folder}" if kind == "bpe" else f"text={folder}", folder


def opened(kind, folder) -> TextEncoder:
    if kind in ("clip", "bpe"):
        return load_clip(folder)
    return text_source(str(folder)).open()


def test_states_are_packed_and_stored(encoder, tmp_path):
    kind, _, folder = encoder
    text = opened(kind, folder)
    assert isinstance(text, TextEncoder)
    with torch.no_grad():
        states = text.encode_prompts(PROMPTS)
    assert states.states.shape == (sum(states.lengths), text.text_width)
    assert max(states.lengths) <= text.max_length
    assert min(states.lengths) > 0
    assert text.read_prompt(PROMPTS[0]).num_read == 4

    with torch.no_grad():
        for one, prompt in zip(states.split(), PROMPTS):
            alone = text.encode_prompts([prompt]).states
            torch.testing.assert_close(one.states, alone, atol=1e-5, rtol=1e-5)
        cache = TextCache(ShardCache(tmp_path, kind), text.text_width, text.max_length)
        cache.fill(PROMPTS, text)
    read = cache.encode_prompts(PROMPTS[::-1])
    assert read.lengths == states.lengths[::-1]
    torch.testing.assert_close(
        torch.cat([s.states for s in read.split()[::-1]]), states.states.bfloat16().float()
    )


def test_a_backbone_is_trained_on_it_and_the_model_finds_it(encoder, home, monkeypatch):
    kind, setting, folder = encoder
    monkeypatch.setattr("kinema.training.tasks.diffusion.task.NUM_SAMPLES", 1)
    out = home / "runs" / kind
    task = load_task(RECIPE, steps=2, assignments=[*QUICK, setting])
    assert train(task, out)

    model = out / "export"
    verify_hashes(model)
    assert load_backbone(model).text_width == opened(kind, folder).text_width
    assert type(load_text_encoder(model)) is type(opened(kind, folder))
    assert (model / "text_encoder" / "model.safetensors").exists() == (kind in ("clip", "bpe"))
    result = load(model, device="cpu").run(Request("a red fox runs", seed=1, steps=2, frames=5))
    assert result.prompt.num_read == 4


def test_weights_for_states_of_another_width_are_refused(home, monkeypatch):
    toy_text_encoder.register(monkeypatch)
    if not (home / "wide").exists():
        toy_text_encoder.save(home / "wide", 20)
    with pytest.raises(ConfigError, match=r"text states of width 192, but the text encoder .* width 20"):
        load_task(RECIPE, assignments=[f"text={home / 'wide'}"], init_from=resolve_model("shipped"))


def test_a_setting_that_the_run_does_not_read_is_refused(home, monkeypatch):
    toy_text_encoder.register(monkeypatch)
    if not (home / "toy").exists():
        toy_text_encoder.save(home / "toy", 12)
    with pytest.raises(ConfigError, match="clip does not apply to a run with text: leave it out"):
        load_task(RECIPE, assignments=[f"text={home / 'toy'}", "clip=shipped"])
