"""The captioner: words to ids and back, a model that sees no word before its time, and learns what it is
shown.
"""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from kinema.checkpoints.components import load_component, save_component
from kinema.errors import ConfigError, RequestError
from kinema.models.captioner import END, PAD, Captioner, CaptionerConfig, ClipFeatures, clip_features
from kinema.models.oracle import Oracle, OracleConfig
from kinema.worlds import CAPTION_KEYS
from kinema.worlds.stage import StageConfig, StageWorld

WORLD = StageWorld(StageConfig(nouns=24, split="all"))


def captioner(**sizes) -> Captioner:
    torch.manual_seed(0)
    words = (*WORLD.words, ".", ",")
    small = {"width": 32, "num_heads": 2, "num_layers": 1, "mlp_width": 32, **sizes}
    return Captioner(CaptionerConfig(words, CAPTION_KEYS, frame_width=6, whole_width=5, **small)).eval()


def seen(count: int, num_frames: int = 5) -> ClipFeatures:
    generator = torch.Generator().manual_seed(count)
    return ClipFeatures(
        torch.randn(count, num_frames, 6, generator=generator), torch.randn(count, 3, 5, generator=generator)
    )


def test_every_caption_of_a_world_comes_back_from_its_ids():
    codec = captioner().codec
    for seed in range(60):
        for text in WORLD.clip(seed, height=8, width=8, num_frames=1).captions.values():
            assert codec.decode(codec.encode(text)) == text


def test_a_word_outside_the_vocabulary_is_named():
    with pytest.raises(ConfigError, match="does not have the word 'zebra'"):
        captioner().codec.encode("a zebra walks")


def test_no_word_depends_on_a_later_one():
    model, ids = captioner(), torch.randint(10, 60, (2, 9), generator=torch.Generator().manual_seed(1))
    changed = ids.clone()
    changed[:, 6:] += 1
    with torch.no_grad():
        first, second = model(seen(2), ids), model(seen(2), changed)
    assert torch.equal(first[:, :6], second[:, :6])
    assert not torch.equal(first[:, 6:], second[:, 6:])


def test_every_word_depends_on_the_clip():
    model, ids = captioner(), torch.randint(10, 60, (1, 5), generator=torch.Generator().manual_seed(1))
    clip, other = seen(1), seen(2)
    with torch.no_grad():
        difference = model(clip, ids) - model(ClipFeatures(other.frames[:1], other.wholes[:1]), ids)
    assert (difference.abs().amax(dim=-1) > 1e-4).all()


def test_clips_together_are_captioned_as_each_by_itself():
    model, clips = captioner(max_length=12), seen(3)
    forms = ["short", "detailed", "medium_zh"]
    together = model.write(clips, forms)
    for i, form in enumerate(forms):
        (alone,) = model.write(ClipFeatures(clips.frames[i : i + 1], clips.wholes[i : i + 1]), [form])
        assert alone.text == together[i].text
        assert alone.confidence == pytest.approx(together[i].confidence, rel=1e-4)
        assert 0 < alone.confidence <= 1


def test_drawn_captions_depend_on_the_generator_alone():
    model = captioner(max_length=12)
    drawn = [
        model.write(seen(1), ["short"], temperature=1.0, generator=torch.Generator().manual_seed(s))[0].text
        for s in (1, 1, 2)
    ]
    assert drawn[0] == drawn[1] != drawn[2]


def test_it_learns_to_tell_clips_apart_and_stops_when_all_is_said():
    model, clips = captioner().train(), seen(3)
    said = ["a penguin walks to the left", "a rocket rises over a snowy plain at night", "一只鸭子向右行走"]
    forms = ["short", "medium", "short_zh"]
    rows = [[model.codec.form_ids[form], *model.codec.encode(text), END] for form, text in zip(forms, said)]
    longest = max(map(len, rows))
    ids = torch.tensor([row + [PAD] * (longest - len(row)) for row in rows])
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(60):
        loss = F.cross_entropy(
            model(clips, ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten(), ignore_index=PAD
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    written = model.eval().write(clips, forms)
    assert [one.text for one in written] == said
    assert all(one.is_complete and one.confidence > 0.5 for one in written)
    assert not captioner(max_length=3).write(clips, forms)[0].is_complete


def test_a_captioner_comes_back_from_its_folder(tmp_path):
    model = captioner()
    save_component(tmp_path / "captioner", model)
    back = load_component(tmp_path / "captioner", Captioner)
    assert back.config == model.config
    assert back.write(seen(1), ["short"]) == model.write(seen(1), ["short"])


def test_short_clips_are_looked_at_more_often_and_pictures_not_at_all():
    slots = {name: ("one", "two") for name in ("noun", "verb")}
    oracle = Oracle(OracleConfig(slots, width=8, short_side_px=32)).eval()
    frames = np.random.default_rng(0).integers(0, 256, (40, 32, 48, 3), dtype=np.uint8)
    assert clip_features(oracle, frames, 8.0, max_frames=9).frames.shape == (1, 9, 38)
    assert clip_features(oracle, frames[:6], 8.0, max_frames=9).frames.shape == (1, 5, 38)
    with pytest.raises(RequestError, match="1 frame is too short for a caption"):
        clip_features(oracle, frames[:1], 8.0, max_frames=9)


def test_sizes_that_do_not_fit_are_refused():
    with pytest.raises(ConfigError, match="multiple of num_heads"):
        CaptionerConfig(width=30, num_heads=4)
    with pytest.raises(ConfigError, match="needs words"):
        Captioner(CaptionerConfig())
