"""Tasks: kept clips stay bit for bit at every position, and results have the requested length."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from kinema.errors import ConfigError, RequestError
from kinema.generation.conditioning import tasks
from kinema.generation.conditioning.clips import ClipCondition, content_hash
from kinema.generation.conditioning.encode import encode_conditions
from kinema.generation.pipeline import Pipeline
from kinema.generation.plan import CLIP_GUIDANCE
from kinema.generation.request import Request
from kinema.models.pixels import from_uint8
from kinema.models.vae_conditioning import encode_conditioning
from kinema.video import Video

REQUEST = Request("a red fox runs", width=48, height=32, steps=2, seed=3)
FPS = 8.0


def clip_of(num_frames: int, *, seed: int = 0, width: int = 48, height: int = 32, fps: float = FPS) -> Video:
    """A moving gradient, different for every seed."""
    f, y, x = np.meshgrid(np.arange(num_frames), np.arange(height), np.arange(width), indexing="ij")
    frames = np.stack(
        [(3 * x + 5 * f + 40 * seed) % 256, (4 * y + 7 * f) % 256, (x + y + 11 * f + seed) % 256], axis=-1
    )
    return Video(frames.astype(np.uint8), fps)


def made(pipeline: Pipeline, task: tasks.TaskRequest) -> np.ndarray:
    request, inputs = task
    return pipeline.run(request, inputs=inputs).video.frames


@pytest.mark.parametrize("length", [4, 5, 6, 9, 13])
@pytest.mark.parametrize("direction", ["forward", "backward", "both"])
def test_an_extension_keeps_the_clip_bit_for_bit_at_its_end_of_the_result(pipeline, length, direction):
    clip = clip_of(length)
    frames = made(pipeline, tasks.extend(REQUEST, clip, seconds=0.5, direction=direction, fps=FPS))
    before, sides = (0, 1) if direction == "forward" else (4, 1 + (direction == "both"))
    assert len(frames) == length + 4 * sides
    kept = frames[before : before + length]
    equal = [np.array_equal(a, b) for a, b in zip(kept, clip.frames)]
    # With "both", one end may share a latent with generated frames: at most 3 of its frames are blended.
    assert sum(equal) >= length - (3 if direction == "both" else 0)
    assert not np.array_equal(frames[0], clip.frames[0]) or before == 0
    assert len({frame.tobytes() for frame in frames}) > length  # something new, and not one frozen frame


@pytest.mark.portable
def test_a_connection_keeps_both_clips(pipeline, precision):
    first, second = clip_of(5), clip_of(8, seed=2)
    frames = made(pipeline, tasks.connect(REQUEST, first, second, seconds=0.5, fps=FPS))
    assert len(frames) == 5 + 4 + 8
    assert np.array_equal(frames[:5], first.frames)
    assert np.array_equal(frames[-8:], second.frames)


def test_a_gap_that_does_not_fill_latents_blends_at_most_three_frames(pipeline):
    first, second = clip_of(5), clip_of(8, seed=2)
    frames = made(pipeline, tasks.connect(REQUEST, first, second, seconds=0.75, fps=FPS))
    assert len(frames) == 5 + 6 + 8
    differ = [
        i
        for i, (a, b) in enumerate(zip(frames, [*first.frames, *[None] * 6, *second.frames]))
        if b is not None and (a != b).any()
    ]
    assert 0 < len(differ) <= 3


def test_pictures_stand_where_they_were_put(pipeline, precision):
    pictures = [clip_of(1, seed=i) for i in range(3)]
    task = tasks.pictures(
        replace(REQUEST, frames=17), first=pictures[0], last=pictures[1], keyframes=[(1.0, pictures[2])]
    )
    frames = made(pipeline, task)
    for index, picture in ((0, pictures[0]), (16, pictures[1]), (8, pictures[2])):
        assert np.array_equal(frames[index], picture.frames[0])


def test_known_latents_are_those_of_the_clip_and_come_out_of_the_sampler_untouched(pipeline, precision):
    clip = clip_of(9)
    request, inputs = tasks.extend(REQUEST, clip, seconds=1.0, direction="backward", fps=FPS)
    plan = pipeline.plan(request)
    conditions = encode_conditions(plan, inputs, pipeline.vae, pipeline.device)
    latents = pipeline.sample(plan, conditions=conditions)
    known = conditions.canvas.known[0, 0, :, 0, 0]
    # The canvas begins one frame before the result, so that the clip's first frame is the first of a latent.
    assert plan.canvas_first == 1
    assert known.tolist() == [False, False, False, True, True, True]
    assert torch.equal(latents[:, known], conditions.canvas.clean[0][:, known])
    # Behind the result's end the clip goes on reflected.
    with torch.no_grad():
        own = encode_conditioning(
            pipeline.vae, from_uint8([clip.frames[[*range(9), 7, 6, 5]]]), starts_canvas=False
        )
    assert torch.equal(conditions.canvas.clean[:, :, 3:], own)


def test_a_region_keeps_every_pixel_outside_and_changes_pixels_inside(pipeline, precision):
    clip = clip_of(9)
    frames = made(pipeline, tasks.edit(REQUEST, clip, strength=1.0, region=(16, 8, 16, 16), fps=FPS))
    outside = np.ones((32, 48), bool)
    outside[8:24, 16:32] = False
    assert np.array_equal(frames[:, outside], clip.frames[:, outside])
    inside = frames[:, 12:20, 20:28].astype(int) - clip.frames[:, 12:20, 20:28]
    assert (np.abs(inside) > 0).mean() > 0.5


def test_a_mask_and_the_region_of_the_same_shape_give_the_same(pipeline):
    clip = clip_of(5)
    white = np.zeros((1, 32, 48, 3), np.uint8)
    white[:, 8:24, 16:32] = 255
    by_region = made(pipeline, tasks.edit(REQUEST, clip, strength=0.7, region=(16, 8, 16, 16), fps=FPS))
    by_mask = made(pipeline, tasks.edit(REQUEST, clip, strength=0.7, mask=Video(white, 1.0), fps=FPS))
    assert np.array_equal(by_region, by_mask)


def test_an_edited_span_leaves_the_frames_around_it(pipeline):
    clip = clip_of(13)
    frames = made(pipeline, tasks.edit(REQUEST, clip, strength=0.9, start_s=0.5, end_s=1.0, fps=FPS))
    changed = [i for i in range(13) if not np.array_equal(frames[i], clip.frames[i])]
    assert changed == [4, 5, 6, 7]


def test_a_weaker_edit_stays_nearer_to_the_clip(pipeline):
    clip, distances = clip_of(9), []
    for strength in (0.05, 0.5, 1.0):
        request, inputs = tasks.edit(replace(REQUEST, steps=4), clip, strength=strength, fps=FPS)
        plan = pipeline.plan(request)
        conditions = encode_conditions(plan, inputs, pipeline.vae, pipeline.device)
        distances.append(
            float((pipeline.sample(plan, conditions=conditions) - conditions.canvas.clean[0]).abs().mean())
        )
    assert distances == sorted(distances)
    assert distances[0] < 0.5 * distances[2]


def test_a_storyboard_has_its_pictures_and_clips_at_their_times(pipeline):
    picture, clip = clip_of(1), clip_of(4, seed=1)
    shots = [tasks.Shot(0, "a red fox", picture), tasks.Shot(1.125, "the blue ball", clip)]
    request, inputs = tasks.storyboard(replace(REQUEST, frames=17), shots, fps=FPS)
    assert request.prompt == "a red fox"
    frames = pipeline.run(request, inputs=inputs).video.frames
    assert np.array_equal(frames[0], picture.frames[0])
    assert np.array_equal(frames[9:13], clip.frames)


def test_a_later_prompt_changes_only_what_comes_after_it(pipeline):
    shots = [tasks.Shot(0, "a red fox"), tasks.Shot(1.125, "the blue ball")]
    request, _ = tasks.storyboard(replace(REQUEST, frames=17), shots, fps=FPS)
    other = replace(request, prompts=(replace(request.prompts[0], prompt="the meadow"),))
    one, two = (pipeline.sample(pipeline.plan(asked)) for asked in (request, other))
    assert torch.equal(one[:, :3], two[:, :3])
    assert not torch.allclose(one[:, 3:], two[:, 3:], atol=1e-3)


def test_a_clip_of_another_rate_and_shape_is_fitted_and_the_reply_says_how(pipeline):
    clip = clip_of(30, width=64, height=96, fps=24.0)
    request, inputs = tasks.extend(REQUEST, clip, seconds=0.5, fps=FPS)
    result = pipeline.run(request, inputs=inputs)
    assert result.notes == (
        "64x96, 30 frames at 24 fps: scaled to 48x32, with 56% of the picture cut off; "
        "taken at 8 fps, 10 frames",
    )
    assert result.video.num_frames == 14


def test_a_request_with_conditions_survives_json_and_its_inputs_a_job(pipeline, tmp_path):
    request, inputs = tasks.connect(REQUEST, clip_of(5), clip_of(4, seed=1), seconds=0.5, fps=FPS)
    assert Request.from_json(request.to_json()) == request
    first = pipeline.run(request, inputs=inputs, job=tmp_path / "job").video.frames
    assert np.array_equal(pipeline.continue_job(tmp_path / "job").video.frames, first)


def test_clips_are_continued_with_less_guidance_and_made_anew_with_all_of_it(pipeline):
    clip, full = clip_of(9), pipeline.manifest.guidance
    guidance = {
        name: pipeline.plan(request).guidance
        for name, (request, _) in {
            "extend": tasks.extend(REQUEST, clip, seconds=0.5, fps=FPS),
            "asked": tasks.extend(replace(REQUEST, guidance=3.5), clip, seconds=0.5, fps=FPS),
            "edit": tasks.edit(REQUEST, clip, strength=0.5, fps=FPS),
            "picture": tasks.pictures(REQUEST, first=clip_of(1)),
        }.items()
    }
    assert guidance == {"extend": CLIP_GUIDANCE * full, "asked": 3.5, "edit": full, "picture": full}


def test_without_words_there_is_no_guidance(pipeline):
    request, _ = tasks.extend(replace(REQUEST, prompt=""), clip_of(5), seconds=0.5, fps=FPS)
    assert pipeline.plan(request).guidance == 1


@pytest.mark.parametrize(
    ("task", "line"),
    [
        (lambda: tasks.extend(REQUEST, clip_of(5), seconds=0, fps=FPS), "seconds=0 adds nothing"),
        (lambda: tasks.extend(REQUEST, clip_of(5), seconds=-1, fps=FPS), "seconds=-1 adds nothing"),
        (
            lambda: tasks.extend(REQUEST, clip_of(5), seconds=float("nan"), fps=FPS),
            "seconds=nan adds nothing",
        ),
        (
            lambda: tasks.extend(replace(REQUEST, seconds=3.0), clip_of(5), seconds=1, fps=FPS),
            "the length follows from the clips",
        ),
        (lambda: tasks.pictures(REQUEST), "no picture was given"),
        (lambda: tasks.pictures(REQUEST, first=clip_of(3)), "a clip of 3 frames was given"),
        (
            lambda: tasks.pictures(replace(REQUEST, frames=9), keyframes=[(2.0, clip_of(1))]),
            "does not fit into a result of 1.125 s",
        ),
        (lambda: tasks.edit(REQUEST, clip_of(9), strength=0, fps=FPS), "strength=0 changes nothing"),
        (
            lambda: tasks.edit(REQUEST, clip_of(9), strength=0.5, start_s=1.0, end_s=0.5, fps=FPS),
            "is not a span of this clip",
        ),
        (
            lambda: tasks.edit(REQUEST, clip_of(9), strength=0.5, end_s=9.0, fps=FPS),
            "use times from 0 to 1.125 s",
        ),
        (
            lambda: tasks.edit(REQUEST, clip_of(9), strength=0.5, region=(40, 0, 16, 8), fps=FPS),
            "reaches outside the frame of 48x32",
        ),
        (
            lambda: tasks.edit(REQUEST, clip_of(9), strength=0.5, region=(0, 0, 0, 8), fps=FPS),
            "region 0,0,0,8 is empty or negative",
        ),
        (
            lambda: tasks.edit(
                REQUEST, clip_of(9), strength=0.5, region=(0, 0, 8, 8), mask=clip_of(1), fps=FPS
            ),
            "a region or a mask, not both",
        ),
        (
            lambda: tasks.edit(REQUEST, clip_of(9), strength=0.5, mask=clip_of(1, width=40), fps=FPS),
            "the mask has 40x32 pixels",
        ),
        (
            lambda: tasks.edit(REQUEST, clip_of(9), strength=0.5, mask=clip_of(2), fps=FPS),
            "the mask has 2 frames",
        ),
        (
            lambda: tasks.edit(
                REQUEST,
                clip_of(9),
                strength=0.5,
                mask=Video(np.zeros((1, 32, 48, 3), np.uint8), 1.0),
                fps=FPS,
            ),
            "the mask is black everywhere",
        ),
        (
            lambda: tasks.loop(replace(REQUEST, frames=8), clip_of(9), fps=FPS),
            "does not fit into a result of 1 s",
        ),
        (
            lambda: tasks.loop(replace(REQUEST, frames=9), fps=FPS),
            "a loop of 9 frames does not close: use a multiple of 4, e.g. frames=8",
        ),
        (
            lambda: tasks.storyboard(
                replace(REQUEST, frames=17),
                [tasks.Shot(0, "a fox"), tasks.Shot(0.6, None, clip_of(3))],
                fps=FPS,
            ),
            "a clip of 3 frames is shorter than one latent",
        ),
        (
            lambda: tasks.storyboard(
                replace(REQUEST, frames=9), [tasks.Shot(0, "a fox"), tasks.Shot(2, "a ball")], fps=FPS
            ),
            "the prompt at 2 s starts after the end",
        ),
        (
            lambda: (
                Request("a fox", width=48, height=32, conditions=(ClipCondition("0" * 32, seconds=0.5),)),
                {},
            ),
            "is not among the 0 inputs given with it",
        ),
    ],
)
def test_what_cannot_be_is_one_line(pipeline, task, line):
    with pytest.raises((RequestError, ConfigError), match=line.replace("(", r"\(")) as caught:
        made(pipeline, task())
    assert "\n" not in str(caught.value)


def test_equal_clips_have_equal_hashes_and_another_rate_another():
    assert content_hash(clip_of(3)) == content_hash(clip_of(3))
    assert (
        len(
            {
                content_hash(clip_of(3)),
                content_hash(clip_of(3, fps=9.0)),
                content_hash(clip_of(3, seed=1)),
                content_hash(clip_of(4)),
            }
        )
        == 4
    )
