"""A task without a prompt takes the one of its clip: from the file's metadata, or else its caption."""

from dataclasses import replace

import av
import numpy as np
import pytest
from tests.video.frames import smooth

import kinema
from kinema.errors import RequestError
from kinema.generation.conditioning.clips import InputClip, TimedPrompt, read_input
from kinema.generation.conditioning.prompt import with_clip_prompt
from kinema.generation.output.provenance import metadata, provenance
from kinema.generation.request import Request
from kinema.video import Video

SMALL = {"width": 48, "height": 32, "steps": 1}


def saved(pipeline, request, path):
    """A file of 9 frames with the provenance of a request."""
    values = provenance(pipeline.plan(request), model_name="tiny", model_hash="0" * 12)
    frames = np.zeros((9, 32, 48, 3), np.uint8)
    return Video(frames, 8.0).save(path, metadata=metadata(values))


@pytest.mark.parametrize("ending", [".mp4", ".webm", ".mkv", ".gif"])
def test_the_prompt_in_the_metadata_is_taken_with_what_it_was_expanded_from(pipeline, tmp_path, ending):
    made = Request("a red fox runs on the grass", original_prompt="a fox", expander="by hand", **SMALL)
    clip = read_input(saved(pipeline, made, tmp_path / f"clip{ending}"), 8.0, print)
    lines = []
    found = with_clip_prompt(Request("", seed=4), [clip], lines.append)
    assert found == Request(
        made.prompt, seed=4, original_prompt="a fox", expander="by hand", prompt_source="metadata"
    )
    assert lines == [f"prompt of {clip.name}: a red fox runs on the grass"]


def test_of_timed_prompts_the_one_at_the_extended_end_is_taken(pipeline, tmp_path):
    made = Request("a fox runs", prompts=(TimedPrompt(0.5, "a ball rolls"),), **SMALL)
    clip = read_input(saved(pipeline, made, tmp_path / "clip.mkv"), 8.0, print)
    found = [with_clip_prompt(Request(""), [clip], print, at_end=at_end).prompt for at_end in (True, False)]
    assert found == ["a ball rolls", "a fox runs"]


def test_the_second_clips_prompt_is_taken_if_the_first_has_none(pipeline, tmp_path):
    stored = read_input(saved(pipeline, Request("a fox runs", **SMALL), tmp_path / "clip.mkv"), 8.0, print)
    foreign = InputClip(Video(smooth(9), 8.0))
    assert with_clip_prompt(Request(""), [foreign, stored], print).prompt == "a fox runs"


def test_a_clip_without_metadata_is_captioned_at_the_extended_end():
    world = kinema.Video(smooth(40), 8.0)
    clip = InputClip(world, "foreign.mp4")
    for at_end, frames in ((True, world.frames[-20:]), (False, world.frames[:20])):
        lines = []
        found = with_clip_prompt(Request(""), [clip], lines.append, at_end=at_end)
        assert found.prompt
        assert found.prompt_source == "caption"
        assert lines[0].startswith(f"caption of foreign.mp4, as prompt: {found.prompt} (confidence 0.")
        alone = with_clip_prompt(Request(""), [InputClip(Video(frames, 8.0))], print, at_end=at_end)
        assert alone.prompt == found.prompt


def test_a_clip_too_short_for_a_caption_needs_a_prompt():
    with pytest.raises(RequestError, match=r"4 frames is too short for a caption: .* or a prompt"):
        with_clip_prompt(Request(""), [InputClip(Video(smooth(4), 8.0))], print)


def test_extend_connect_and_loop_carry_the_prompt_of_the_clip_and_an_empty_one_stays_empty(
    pipeline, model_folder, tmp_path, caplog
):
    clip = saved(pipeline, Request("a red fox runs", **SMALL), tmp_path / "clip.mkv")
    options = {"model": model_folder, **SMALL}
    results = [
        kinema.extend(clip, seconds=0.5, **options),
        kinema.connect(clip, clip, seconds=0.5, **options),
        kinema.loop(clip=clip, frames=12, **options),
    ]
    for result in results:
        request = result.provenance["request"]
        assert (request["prompt"], request["prompt_source"]) == ("a red fox runs", "metadata")
    assert f"prompt of {clip}: a red fox runs" in caplog.text
    empty = kinema.extend(clip, "", seconds=0.5, **options).plan.request
    assert (empty.prompt, empty.prompt_source) == ("", None)


def test_the_prompt_source_survives_json():
    request = replace(Request("a fox"), prompt_source="caption")
    assert Request.from_json(request.to_json()) == request


def test_a_file_is_opened_once_and_a_still_of_any_container_is_one_frame(tmp_path, monkeypatch):
    opened = []
    real = av.open
    monkeypatch.setattr(av, "open", lambda *a, **b: opened.append(a) or real(*a, **b))
    clip = Video(smooth(6), 24.0).save(tmp_path / "clip.mp4")
    still = Video(smooth(1), 2.0).save(tmp_path / "still.mp4")
    opened.clear()

    lines = []
    read = [read_input(file, 8.0, lines.append).video for file in (clip, still)]
    assert [(video.num_frames, video.fps) for video in read] == [(2, 8.0), (1, 2.0)]
    assert lines == [f"{clip}: 24 fps, resampled to 8 fps"]
    assert len(opened) == 2
