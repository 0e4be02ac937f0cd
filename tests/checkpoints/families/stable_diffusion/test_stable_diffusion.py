"""Image models of diffusers in their own folders: the same pictures from the same noise."""

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.checkpoints.families.stable_diffusion.image_folders import SIZE, peer

from kinema.checkpoints.adapters import LoRAFile
from kinema.cli.main import main
from kinema.errors import ModelError, RequestError
from kinema.generation.conditioning import tasks
from kinema.generation.loading import load
from kinema.generation.request import Request
from kinema.generation.sampling.noise import START, latent_noise
from kinema.video import Video

diffusers = pytest.importorskip("diffusers")

PROMPT, SEED = "a red fox runs across the meadow", 5
KINDS = ("sd-1.5", "sd-2.1", "sdxl", "dit")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """(pipeline of diffusers, folder) by kind."""
    home, made = tmp_path_factory.mktemp("images"), {}
    for kind in KINDS:
        made[kind] = peer(kind), home / kind
        made[kind][0].save_pretrained(home / kind, safe_serialization=True)
        if kind == "dit":
            add_values(
                home / kind / "model_index.json", id2label={"0": "tench, Tinca tinca", "1": "goldfish"}
            )
        made[kind][0].set_progress_bar_config(disable=True)
    return made


def add_values(file, **values):
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def noise(size=SIZE):
    return latent_noise(SEED, START, [0], (4, size // 2, size // 2), 0).movedim(1, 0)


def request(**fields):
    values = {"width": SIZE, "height": SIZE, "steps": 10, "seed": SEED, "beyond_trained": True} | fields
    return Request(values.pop("prompt", PROMPT), **values)


def picture(seed=3):
    return Video(np.random.default_rng(seed).integers(0, 256, (1, SIZE, SIZE, 3), dtype=np.uint8), 1.0)


def assert_same(result, expected):
    """Pixels in 0 ... 255 differ by at most 1."""
    frames = result.video.frames[0].astype(float)
    theirs = np.round(255 * np.asarray(expected.images[0]))
    assert frames.std() > 2
    assert np.abs(frames - theirs).max() <= 1


@pytest.mark.parametrize("kind", KINDS[:3])
def test_pictures_are_those_of_diffusers(models, kind):
    theirs, folder = models[kind]
    ours = load(folder, device="cpu", precision="fp32")
    assert ours.manifest.sampler == ("euler" if kind == "sdxl" else "ddim")
    options = {"num_inference_steps": 10, "height": SIZE, "width": SIZE, "output_type": "np"}
    for negative in ("", "blue ball"):
        given = request(guidance=4.0, negative_prompt=negative)
        expected = theirs(
            PROMPT, guidance_scale=4.0, negative_prompt=negative or None, latents=noise(), **options
        )
        assert_same(ours.run(given), expected)


def test_pictures_of_classes_are_those_of_diffusers(models):
    theirs, folder = models["dit"]
    ours = load(folder, device="cpu", precision="fp32")
    result = ours.run(request(prompt="goldfish", guidance=3.0))
    theirs.transformer.config.sample_size = 16
    with pytest.MonkeyPatch.context() as patch:
        module = "diffusers.pipelines.dit.pipeline_dit.randn_tensor"
        patch.setattr(module, lambda **_: noise())
        expected = theirs([1], guidance_scale=3.0, num_inference_steps=10, output_type="np")
    assert_same(result, expected)
    with pytest.raises(RequestError, match=r"'gold fish' is no class of this model.*near are goldfish"):
        ours.run(request(prompt="gold fish"))


def test_a_picture_is_changed_as_by_diffusers(models):
    theirs, folder = models["sd-1.5"]
    ours = load(folder, device="cpu", precision="fp32")
    image_to_image = diffusers.StableDiffusionImg2ImgPipeline(
        **theirs.components, requires_safety_checker=False
    )
    image_to_image.set_progress_bar_config(disable=True)
    given = picture()
    task = tasks.edit(request(guidance=4.0), given, strength=0.502, fps=1.0)
    result = ours.run(task.request, inputs=task.inputs)

    pixels = torch.from_numpy(given.frames).permute(0, 3, 1, 2).float() / 255
    with torch.no_grad(), pytest.MonkeyPatch.context() as patch:
        name = "diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion_img2img"
        patch.setattr(f"{name}.randn_tensor", lambda *_, **__: noise())
        mean = theirs.vae.encode(2 * pixels - 1).latent_dist.mean
        patch.setattr(f"{name}.retrieve_latents", lambda *_, **__: mean)
        expected = image_to_image(
            PROMPT, pixels, strength=0.6, guidance_scale=4.0, num_inference_steps=10, output_type="np"
        )
    assert_same(result, expected)


def test_pixels_outside_a_mask_are_kept(models):
    ours = load(models["sd-1.5"][1], device="cpu", precision="fp32")
    given, white = picture(), np.zeros((1, SIZE, SIZE, 3), dtype=np.uint8)
    white[:, 8:24, 8:24] = 255
    task = tasks.edit(request(), given, strength=1.0, mask=Video(white, 1.0), fps=1.0)
    frame = ours.run(task.request, inputs=task.inputs).video.frames[0]
    outside = white[0, ..., 0] == 0
    assert np.array_equal(frame[outside], given.frames[0][outside])
    assert not np.array_equal(frame[~outside], given.frames[0][~outside])


def test_the_command_line_generates_changes_inspects_and_plans(models, tmp_path, capsys):
    folder, out = models["sdxl"][1], tmp_path / "fox.png"
    size = ["--size", f"{SIZE}x{SIZE}", "--steps", "2", "--beyond-trained"]
    assert main(["generate", PROMPT, "--model", str(folder), *size, "--frames", "1", "-o", str(out)]) == 0
    assert Video.read(out).frames.shape == (1, SIZE, SIZE, 3)
    white = tmp_path / "mask.png"
    Video(np.full((1, SIZE, SIZE, 3), 255, dtype=np.uint8), 1.0).save(white)
    words = ["--image", str(out), "--mask", str(white), "--strength", "0.5", "-o", str(tmp_path / "ball.png")]
    assert main(["generate", "a blue ball", "--model", str(folder), *size, *words]) == 0
    assert not np.array_equal(Video.read(tmp_path / "ball.png").frames, Video.read(out).frames)

    assert main(["models", "inspect", str(folder)]) == 0
    text = capsys.readouterr().out
    assert "Stable Diffusion XL, in the layout diffusers" in text
    assert "text_encoder_2/" in text
    assert main(["plan", "--model", str(folder), "--size", f"{SIZE}x{SIZE}"]) == 0
    assert "forward passes" in capsys.readouterr().out


def test_an_adapter_in_the_names_of_kohya_is_merged(models, tmp_path):
    folder = models["sd-1.5"][1]
    layers = {"attentions_0_transformer_blocks_0_attn1_to_q": (16, 16), "attentions_0_proj_in": (16, 16)}
    state = {}
    for layer, (d_out, d_in) in layers.items():
        name = f"lora_unet_down_blocks_0_{layer}"
        shape = (1, 1) if "proj" in layer else ()
        state |= {f"{name}.lora_down.weight": torch.randn(2, d_in, *shape)}
        state |= {f"{name}.lora_up.weight": torch.randn(d_out, 2, *shape), f"{name}.alpha": torch.tensor(2.0)}
    save_file(state, tmp_path / "lora.safetensors")
    notes: list[str] = []
    lora = LoRAFile(tmp_path / "lora.safetensors")
    adapted = load(folder, device="cpu", precision="fp32", loras=[lora], on_note=notes.append)
    assert notes == [f"{lora.path}: applied 2/2 at scale 1"]
    plain = load(folder, device="cpu", precision="fp32")
    latents = [one.sample(one.plan(request())) for one in (plain, adapted)]
    assert not torch.allclose(*latents, atol=1e-3)


def test_a_vae_with_the_names_before_2023_and_half_precision_is_read(models, tmp_path):
    folder = tmp_path / "old"
    shutil.copytree(models["sd-1.5"][1], folder)
    names = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    file = folder / "vae" / "diffusion_pytorch_model.safetensors"
    state = {}
    for name, tensor in load_file(file).items():
        for new, old in names.items():
            name = name.replace(f"attentions.0.{new}.", f"attentions.0.{old}.")
        state[name] = tensor.half()
    file.unlink()
    save_file(state, file.with_name("diffusion_pytorch_model.fp16.safetensors"))
    vaes = [load(path, device="cpu", precision="fp32").vae for path in (folder, models["sd-1.5"][1])]
    z = torch.randn(1, 4, 1, 4, 4)
    torch.testing.assert_close(vaes[0].decode(z), vaes[1].decode(z), rtol=0, atol=2e-2)


def changed(source, target, file, **values):
    shutil.copytree(source, target)
    add_values(target / file, **values)
    return target


@pytest.mark.parametrize(
    ("file", "values", "message"),
    [
        (
            "model_index.json",
            {"_class_name": "UnCLIPPipeline"},
            "UnCLIPPipeline, which is not supported: the",
        ),
        ("model_index.json", {"_class_name": "IFPipeline"}, "DeepFloyd IF generates pixels"),
        ("model_index.json", {"_class_name": "StableDiffusionControlNetPipeline"}, "without ControlNet"),
        ("model_index.json", {"requires_aesthetics_score": True}, "the refiner of SDXL.*: use the base"),
        ("scheduler/scheduler_config.json", {"prediction_type": "flow_prediction"}, "is not one of epsilon"),
        ("scheduler/scheduler_config.json", {"beta_end": 0.013}, "are not those of a noise schedule here"),
        ("unet/config.json", {"in_channels": 9}, "models with a picture beside the latents"),
        (
            "unet/config.json",
            {"class_embed_type": "timestep"},
            "class_embed_type = 'timestep' is not supported",
        ),
    ],
)
def test_what_is_not_supported_is_refused_in_one_line(models, tmp_path, file, values, message):
    folder = changed(models["sd-1.5"][1], tmp_path / "other", file, **values)
    with pytest.raises(ModelError, match=message) as caught:
        load(folder, device="cpu")
    assert "\n" not in str(caught.value)


def test_an_image_model_makes_no_videos(models):
    ours = load(models["sd-1.5"][1], device="cpu", precision="fp32")
    with pytest.raises(RequestError, match=r"sd-1\.5 makes single pictures, not 5 frames: use frames=1"):
        ours.plan(request(frames=5))
