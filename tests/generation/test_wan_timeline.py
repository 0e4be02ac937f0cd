"""Every task on Wan models: with one time per token, and with one time for all tokens."""

from dataclasses import replace

import numpy as np
import pytest
from tests.checkpoints.families.wan.wan_folders import peer

from kinema.generation.conditioning import tasks
from kinema.generation.loading import load
from kinema.generation.request import Request
from kinema.video import Video

FRAMES = 5


@pytest.fixture(scope="module", params=["2.1-t2v", "2.2-ti2v-5b"])
def pipeline(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("wan") / request.param
    peer(request.param).save_pretrained(folder, safe_serialization=True)
    return load(folder, device="cpu", precision="fp32")


@pytest.fixture
def asked(pipeline):
    scale = pipeline.vae.config.spatial_factor
    return Request("a red fox runs", width=4 * scale, height=2 * scale, steps=2, beyond_trained=True)


def clip_of(pipeline, asked, seed=0, frames=FRAMES):
    pixels = np.random.default_rng(seed).integers(
        0, 256, (frames, asked.height, asked.width, 3), dtype=np.uint8
    )
    return Video(pixels, pipeline.manifest.fps)


def made(pipeline, task):
    request, inputs = task
    return pipeline.run(request, inputs=inputs).video.frames


@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_extend_keeps_the_clip(pipeline, asked, direction):
    clip, fps = clip_of(pipeline, asked), pipeline.manifest.fps
    frames = made(pipeline, tasks.extend(asked, clip, seconds=4 / fps, direction=direction, fps=fps))
    assert len(frames) == FRAMES + 4
    # Backwards the clip's first frame, in a latent that is generated in part, passes from one to the other.
    own = frames[:FRAMES] if direction == "forward" else frames[5:]
    assert np.array_equal(own, clip.frames if direction == "forward" else clip.frames[1:])
    other = frames[FRAMES:] if direction == "forward" else frames[:4]
    assert other.std() > 1


def test_connect_keeps_both_clips(pipeline, asked):
    first, second, fps = clip_of(pipeline, asked, 1), clip_of(pipeline, asked, 2, 8), pipeline.manifest.fps
    frames = made(pipeline, tasks.connect(asked, first, second, seconds=4 / fps, fps=fps))
    assert len(frames) == FRAMES + 4 + 8
    assert np.array_equal(frames[:FRAMES], first.frames)
    assert np.array_equal(frames[-4:], second.frames[-4:])


def test_loop_has_no_end(pipeline, asked):
    request, inputs = tasks.loop(replace(asked, frames=8), fps=pipeline.manifest.fps)
    result = pipeline.run(request, inputs=inputs)
    assert result.video.num_frames == 8
    assert result.report["loop"]["seam"] < 3 * max(1.0, result.report["loop"]["motion"])


def test_edit_changes_a_region_and_keeps_the_rest(pipeline, asked):
    clip, half = clip_of(pipeline, asked), asked.width // 2
    region = (0, 0, half, asked.height)
    frames = made(pipeline, tasks.edit(asked, clip, strength=0.7, region=region, fps=pipeline.manifest.fps))
    assert np.array_equal(frames[:, :, half:], clip.frames[:, :, half:])
    assert not np.array_equal(frames[:, :, :half], clip.frames[:, :, :half])


def test_what_is_made_anew_altogether_does_not_depend_on_the_clip(pipeline, asked):
    fps, changes = pipeline.manifest.fps, []
    for strength in (0.3, 1.0):
        frames = [
            made(pipeline, tasks.edit(asked, clip_of(pipeline, asked, seed), strength=strength, fps=fps))
            for seed in (5, 6)
        ]
        changes.append(np.abs(frames[0].astype(int) - frames[1]).mean())
    assert changes[0] > 5
    assert changes[1] < 0.1


def test_a_storyboard_holds_its_pictures(pipeline, asked):
    fps = pipeline.manifest.fps
    stills = [clip_of(pipeline, asked, seed, 1) for seed in (3, 4)]
    shots = [
        tasks.Shot(0.0, prompt="a red fox runs", clip=stills[0]),
        tasks.Shot(4 / fps, prompt="blue ball rolls", clip=stills[1]),
    ]
    frames = made(pipeline, tasks.storyboard(replace(asked, frames=9), shots, fps=fps))
    assert np.array_equal(frames[0], stills[0].frames[0])
    assert np.array_equal(frames[4], stills[1].frames[0])
