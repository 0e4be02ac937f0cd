"""Wan models against diffusers' pipelines: equal weights, noise and prompts give equal frames."""

from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest
import torch
from tests.checkpoints.families.wan.wan_folders import KINDS, saved_peers

from kinema.checkpoints.families import FAMILIES
from kinema.checkpoints.families.wan.family import WAN
from kinema.checkpoints.families.wan.model import NEGATIVE_PROMPT
from kinema.cli.main import main
from kinema.errors import ConfigError, ModelError, RequestError
from kinema.generation.conditioning.clips import ClipCondition
from kinema.generation.conditioning.encode import KeptFrame, encode_conditions
from kinema.generation.conditioning.tasks import pictures
from kinema.generation.loading import load
from kinema.generation.output.blend import compose
from kinema.generation.plan import make_plan
from kinema.generation.request import Request
from kinema.generation.sampling.denoiser import GuidedRun
from kinema.generation.sampling.noise import START, latent_noise
from kinema.models.conditioning import TextStates
from kinema.models.vae import VAE
from kinema.video import Video, save_image

PROMPT, NEGATIVE = "A red  fox runs in &amp; the snow", "blue ball"


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return saved_peers(tmp_path_factory)


def test_the_command_line_generates(folders, tmp_path, capsys):
    folder, _ = folders("2.2-i2v-a14b")
    save_image(tmp_path / "first.png", picture(0, 60, 50))
    words = [
        "generate",
        PROMPT,
        "--model",
        str(folder),
        "--size",
        "48x32",
        "--frames",
        "5",
        "--steps",
        "2",
        "--beyond-trained",
    ]
    assert main([*words, "-o", str(tmp_path / "fox.mkv")]) == 2
    assert "give the first frame" in capsys.readouterr().err
    assert main([*words, "--image", str(tmp_path / "first.png"), "-o", str(tmp_path / "fox.mkv")]) == 0
    out = capsys.readouterr().out
    assert "60x50" in out
    assert "by 2.2-i2v-a14b" in out
    assert "similarity" not in out
    assert {"fox.mkv", "fox.png"} <= {file.name for file in tmp_path.iterdir()}


def test_an_empty_negative_prompt_is_wans_own(folders):
    folder, _ = folders("2.1-t2v")
    pipeline = load(folder, device="cpu", precision="fp32")
    requests = [
        Request(PROMPT, text, width=48, height=32, frames=1, steps=2, beyond_trained=True)
        for text in ("", NEGATIVE_PROMPT, NEGATIVE)
    ]
    default, explicit, other = (pipeline.run(request).video.frames for request in requests)
    assert np.array_equal(default, explicit)
    assert not np.array_equal(default, other)


def test_the_text_encoder_is_let_go_of_and_prompts_are_remembered(folders):
    folder, _ = folders("2.1-t2v")
    text, loads = load(folder, device="cpu", precision="fp32").text_encoder, []
    inner = text._load
    text._load = lru_cache(lambda: loads.append(1) or inner.__wrapped__())
    first = text.encode_prompts([PROMPT, NEGATIVE])
    assert text._load.cache_info().currsize == 0
    again = text.encode_prompts(
        [NEGATIVE, "A red fox runs in & the snow"]
    )  # the same words once they are cleaned
    assert torch.equal(again.states, TextStates.cat(first.split()[::-1]).states)
    assert loads == [1]


@pytest.mark.parametrize("kind", ["2.1-i2v", "2.2-t2v-a14b"])
def test_offloaded_models_give_the_same_frames_bit_for_bit(folders, kind):
    folder, _ = folders(kind)
    request = Request(PROMPT, width=48, height=32, frames=5, steps=2, beyond_trained=True)
    task, inputs = pictures(request, first=Video(picture(0, 48, 32)[None], 16))
    if kind == "2.2-t2v-a14b":
        task, inputs = request, {}
    frames = []
    for offload in ("none", "text", "layers"):
        pipeline = load(folder, device="cpu", precision="fp32", offload=offload)
        frames.append(pipeline.run(task, inputs=inputs).video.frames)
        assert pipeline.text_encoder._load.cache_info().currsize == (offload == "none")
        parameters = pipeline.denoiser.backbones["high"].parameters()
        assert any(parameter.is_meta for parameter in parameters) == (offload == "layers")
    assert np.array_equal(frames[0], frames[1])
    assert np.array_equal(frames[0], frames[2])


def test_too_little_memory_is_said_before_anything_is_loaded(folders, tmp_path, capsys, monkeypatch):
    from kinema.generation.cost import check as memory

    folder, _ = folders("2.1-t2v")
    words = [
        "generate",
        PROMPT,
        "--model",
        str(folder),
        "--size",
        "48x32",
        "--frames",
        "5",
        "--steps",
        "2",
        "--beyond-trained",
    ]
    words += ["-o", str(tmp_path / "fox.mkv")]
    with monkeypatch.context() as patch:
        patch.setitem(FAMILIES, "wan", replace(WAN, load=lambda *_: pytest.fail("it was loaded")))
        patch.setattr(memory, "free_memory_bytes", lambda device: 2**20)
        assert main(words) == 2
    said = capsys.readouterr().err
    assert "48x32, 5 frames" in said
    assert "and 1.0 MiB are free on cpu" in said
    assert "--beyond-memory" in said
    monkeypatch.setattr(memory, "free_memory_bytes", lambda device: 2**20)
    assert main([*words, "--beyond-memory"]) == 0


def test_offload_is_refused_for_a_family_that_does_not_have_it(model_folder):
    with pytest.raises(ConfigError, match=r"offload='layers' does not apply to .*: its family has none"):
        load(model_folder, device="cpu", offload="layers")


def test_a_long_prompt_is_cut_as_the_tokenizer_cuts_it(folders):
    folder, theirs = folders("2.1-t2v")
    text = load(folder, device="cpu", precision="fp32").text_encoder
    prompt = "a red fox " * 300
    assert (
        text.tokens(prompt.strip())[0]
        == theirs.tokenizer(prompt.strip(), max_length=512, truncation=True).input_ids
    )


def test_what_a_model_cannot_do_is_said(folders):
    kinds = ("2.1-i2v", "2.1-flf2v")
    images, both = (load(folders(kind)[0], device="cpu", precision="fp32") for kind in kinds)
    request = Request(PROMPT, width=48, height=32, frames=5, steps=2, beyond_trained=True)
    with pytest.raises(RequestError, match="give the first frame"):
        images.plan(request)
    task, _ = pictures(request, first=Video(picture(0, 48, 32)[None], 16))
    with pytest.raises(RequestError, match="give both"):
        both.plan(task)


def test_the_low_noise_expert_has_its_own_guidance_unless_one_is_asked_for(folders):
    denoiser = load(folders("2.2-t2v-a14b")[0], device="cpu", precision="fp32").denoiser
    request = Request(PROMPT, width=48, height=32, frames=1, beyond_trained=True)
    scales = []
    for guidance in (None, 6.0):
        plan = make_plan(replace(request, guidance=guidance), denoiser.manifest)
        scales += [GuidedRun(denoiser, (plan,)).guidance(name) for name in ("high", "low")]
    assert scales == [4.0, 3.0, 6.0, 6.0]


def test_the_first_picture_is_encoded_once(folders, monkeypatch):
    pipeline, encoded = load(folders("2.1-i2v")[0], device="cpu", precision="fp32"), []
    encode = VAE.stream_encode

    def counted(*given, **more):
        encoded.append(1)
        return encode(*given, **more)

    monkeypatch.setattr(VAE, "stream_encode", counted)
    request = Request(PROMPT, width=48, height=32, frames=5, steps=2, beyond_trained=True)
    task, inputs = pictures(request, first=Video(picture(0, 48, 32)[None], pipeline.manifest.fps))
    pipeline.run(task, inputs=inputs)
    assert encoded == [1]


def test_a_missing_encoder_is_named(folders, tmp_path):
    import shutil

    folder, _ = folders("2.1-t2v")
    broken = tmp_path / "broken"
    shutil.copytree(folder, broken)
    (broken / "tokenizer" / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match=r"tokenizer\.json is missing"):
        load(broken, device="cpu", precision="fp32")


def picture(seed, width, height):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    "kind", ["2.1-flf2v", pytest.param("2.2-i2v-a14b", marks=pytest.mark.slow), "2.2-ti2v-5b"]
)
def test_pictures_of_a_request_are_shown_to_the_model_and_kept_bit_for_bit(folders, kind):
    pipeline = load(folders(kind)[0], device="cpu", precision="fp32")
    scale = pipeline.vae.config.spatial_factor
    size = {"width": 3 * scale - 2, "height": 2 * scale}  # on a canvas that is wider
    request = Request(PROMPT, frames=5, steps=2, beyond_trained=True, **size)
    shown = [picture(seed, size["width"], size["height"]) for seed in range(2 if kind == "2.1-flf2v" else 1)]
    stills = [Video(image[None], pipeline.manifest.fps) for image in shown]
    task, inputs = pictures(request, first=stills[0], last=stills[1] if len(stills) == 2 else None)
    frames = pipeline.run(task, inputs=inputs).video.frames
    expected = sampled(pipeline, task, inputs)
    assert not np.array_equal(expected[0], shown[0])
    kept = {frame: KeptFrame(image) for frame, image in zip((0, 4), shown)}
    assert np.array_equal(frames, np.stack(list(compose(expected, kept))))


def sampled(pipeline, request, inputs):
    """The frames of a request as the model draws them, without those that its pictures replace."""
    plan = pipeline.plan(request)
    conditions = encode_conditions(plan, inputs, pipeline.vae, pipeline.device)
    return pipeline.decode(pipeline.sample(plan, conditions=conditions), plan).frames


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"at_s": 0.25}, "leave loops and other clips"),
        ({"strength": 0.5}, "leave loops and other clips"),
        ({"frames": 97}, "at most 81 frames of one prompt"),
    ],
)
def test_what_an_image_model_is_not_shown_is_refused(folders, change, said):
    pipeline = load(folders("2.1-i2v")[0], device="cpu", precision="fp32")
    place = {
        "media": "0" * 32,
        "at_s": 0.0,
        **{name: value for name, value in change.items() if name != "frames"},
    }
    request = Request(
        PROMPT,
        width=48,
        height=32,
        frames=change.get("frames", 9),
        beyond_trained=True,
        conditions=(ClipCondition(**place),),
    )
    with pytest.raises(RequestError, match=said):
        pipeline.plan(request)


@pytest.mark.parametrize("kind", KINDS)
def test_frames_are_those_of_diffusers(folders, kind):
    from PIL import Image

    folder, theirs = folders(kind)
    pipeline = load(folder, device="cpu", precision="fp32")
    scale = pipeline.vae.config.spatial_factor
    width, height, frames, shift = 6 * scale, 4 * scale, 9, 3.0 if "2.1" in kind else pipeline.manifest.shift
    options = {
        "width": width,
        "height": height,
        "frames": frames,
        "steps": 4,
        "guidance": 3.0,
        "shift": shift,
        "seed": 5,
    }
    request = Request(PROMPT, NEGATIVE, beyond_trained=True, **options)
    inputs, images = {}, {}
    if "i2v" in kind or "flf2v" in kind:
        first, last = picture(1, width, height), picture(2, width, height) if kind == "2.1-flf2v" else None
        stills = [None if image is None else Video(image[None], 16) for image in (first, last)]
        request, inputs = pictures(request, first=stills[0], last=stills[1])
        images = {"image": Image.fromarray(first)} | (
            {} if last is None else {"last_image": Image.fromarray(last)}
        )
    ours = sampled(pipeline, request, inputs)
    noise = latent_noise(5, START, range(3), (pipeline.vae.config.z_dim, 4, 6)).unsqueeze(0)
    theirs.scheduler = type(theirs.scheduler).from_config(theirs.scheduler.config, flow_shift=shift)
    video = theirs(
        prompt=PROMPT,
        negative_prompt=NEGATIVE,
        width=width,
        height=height,
        num_frames=frames,
        num_inference_steps=4,
        guidance_scale=3.0,
        latents=noise,
        **images,
    ).frames[0]
    assert ours.std() > 20  # a picture, and not one grey
    assert np.abs(ours / 255 - video).max() <= 1 / 255
