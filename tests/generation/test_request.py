"""Requests validate themselves, and errors state what was given, what is needed and what to do."""

import dataclasses
import json

import pytest

from kinema.checkpoints.manifest import Manifest
from kinema.errors import RequestError, UnknownName
from kinema.generation.plan import fit_frames, fit_size, make_plan
from kinema.generation.request import Request

MANIFEST = Manifest(
    name="small",
    licence="Apache-2.0",
    fps=8.0,
    sides=(64, 128, 16),
    frames=(5, 33),
    default_size=(96, 128),
    default_frames=16,
    steps=20,
    sampler="unipc",
    guidance=4.0,
    shift=3.0,
)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prompt": "x" * 2001}, "2001 characters: use at most 2000"),
        ({"prompt": "a\0b"}, "NUL"),
        ({"prompt": "a \udce9 fox"}, "half a character"),
        ({"negative_prompt": "x" * 2001}, "negative prompt has 2001"),
        ({"steps": 0}, "steps=0 is out of range: use 1 to 1000"),
        ({"seed": -1}, "seed=-1 is out of range"),
        ({"seconds": -1.0}, "seconds=-1.0 is out of range"),
        ({"seconds": float("nan")}, "seconds=nan is out of range"),
        ({"guidance": float("inf")}, "guidance=inf is out of range"),
        ({"shift": 0.0}, "shift=0.0 is out of range"),
        ({"cache": 0.0}, "cache=0.0 is out of range"),
        ({"guidance_interval": (0.8, 0.2)}, "guidance_interval=0.8,0.2 must be two diffusion times"),
        ({"guidance_interval": (0.2, float("nan"))}, "guidance_interval=0.2,nan must be"),
        ({"width": 64}, "width and height are given together"),
        ({"width": 0, "height": 64}, "width=0 is out of range"),
        ({"seconds": 2.0, "frames": 16}, "seconds=2 or frames=16, not both"),
    ],
)
def test_what_makes_no_sense_is_refused(options, message):
    with pytest.raises(RequestError, match=message):
        Request(**{"prompt": "a fox", **options})


@pytest.mark.parametrize("prompt", ["", " \n\t"])
def test_a_plan_without_prompt_and_clips_is_refused(prompt):
    with pytest.raises(RequestError, match="the prompt is empty"):
        make_plan(Request(prompt), MANIFEST)


def test_an_unknown_sampler_is_told_the_known_ones():
    with pytest.raises(UnknownName, match="did you mean 'unipc'"):
        Request("a fox", sampler="unipcc")


def test_a_request_survives_json():
    request = Request(
        "狐狸 \u201cruns\u201d",
        "blur",
        96,
        64,
        seconds=1.5,
        seed=2**62,
        steps=7,
        sampler="ddim",
        guidance=2.0,
        beyond_trained=True,
    )
    assert Request.from_json(request.to_json()) == request
    cheap = Request("a fox", guidance_interval=(0.25, 0.9), cache=0.02)
    assert Request.from_json(cheap.to_json()) == cheap
    assert Request.from_json(Request("a fox").to_json()) == Request("a fox")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        ("[]", "list, not a JSON object"),
        ('{"prompt": "a", "step": 3}', "did you mean 'steps'"),
        ('{"prompt": "a", "steps": "3"}', "steps = '3' is not of type int"),
        ('{"prompt": "a", "guidance": NaN}', "guidance=nan"),
        ("{}", "lacks prompt"),
    ],
)
def test_json_that_is_no_request_is_refused(text, message):
    with pytest.raises(RequestError, match=message):
        Request.from_json(text)


@pytest.mark.parametrize(
    ("asked", "canvas"), [((64, 128), (64, 128)), ((100, 76), (112, 80)), ((65, 127), (80, 128))]
)
def test_a_size_in_the_trained_range_is_padded_up(asked, canvas):
    assert fit_size(*asked, MANIFEST) == canvas


@pytest.mark.parametrize(
    ("asked", "near"),
    [
        ((256, 256), "128x128"),
        ((512, 256), "128x64"),
        ((1920, 1080), "128x64"),
        ((32, 64), "64x128"),
        ((10, 1000), "64x128"),
    ],
)
def test_a_size_outside_names_one_inside(asked, near):
    with pytest.raises(
        RequestError,
        match=rf"sides of 64 to 128 pixels: use {near}, or allow it with beyond_trained \(--beyond-trained\)",
    ):
        fit_size(*asked, MANIFEST)
    width, height = map(int, near.split("x"))
    assert fit_size(width, height, MANIFEST) == (width, height)
    assert fit_size(*asked, MANIFEST, beyond_trained=True) >= asked


@pytest.mark.parametrize(("asked", "canvas"), [(5, 5), (6, 9), (16, 17), (17, 17), (33, 33)])
def test_a_length_is_padded_up_to_what_the_vae_wants(asked, canvas):
    assert fit_frames(asked, MANIFEST) == canvas


@pytest.mark.parametrize(("asked", "near"), [(1, 5), (4, 5)])
def test_a_shorter_length_than_trained_names_the_nearest(asked, near):
    with pytest.raises(RequestError, match=rf"use frames={near} "):
        fit_frames(asked, MANIFEST)
    assert fit_frames(asked, MANIFEST, beyond_trained=True) >= asked


def test_seconds_become_frames_and_the_canvas_holds_them():
    plan = make_plan(Request("a fox", seconds=2.0), MANIFEST)
    assert (plan.frames, plan.canvas_frames) == (16, 17)
    assert plan.request.frames == 16
    assert plan.request.seconds is None


def test_a_plan_fills_in_the_models_defaults_and_says_what_it_crops():
    plan = make_plan(Request("a fox"), MANIFEST)
    assert (plan.width, plan.height, plan.frames, plan.steps, plan.sampler, plan.guidance, plan.shift) == (
        128,
        96,
        16,
        20,
        "unipc",
        4.0,
        3.0,
    )
    assert plan.text == "128x96, 16 frames at 8 fps (2.00 s), cropped from 128x96 and 17 frames"
    assert not make_plan(Request("a fox", frames=17), MANIFEST).is_cropped


def test_a_plans_own_request_gives_the_same_plan_when_the_defaults_have_changed():
    plan = make_plan(Request("a fox", seconds=1.0), MANIFEST)
    later = dataclasses.replace(
        MANIFEST, steps=5, sampler="ddim", guidance=1.0, shift=1.0, default_size=(64, 64), default_frames=33
    )
    assert make_plan(Request.from_json(json.dumps(plan.request.to_dict())), later) == plan


def test_a_negative_prompt_without_guidance_is_refused():
    with pytest.raises(RequestError, match="needs guidance above 1"):
        make_plan(Request("a fox", "blur", guidance=1.0), MANIFEST)
