import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from kinema.device import CPU, autocast
from kinema.errors import ConfigError
from kinema.models.clip import CLIP, CLIPConfig, clip_loss, spread_frames
from kinema.prompts.word_tokenizer import WordTokenizer

TOKENIZER = WordTokenizer(["a", "dog", "ball", "rolls", "left", "right", "球"], max_length=12, table={})
CONFIG = CLIPConfig(
    len(TOKENIZER),
    max_length=12,
    text_width=16,
    text_layers=2,
    text_heads=2,
    video_width=16,
    video_layers=2,
    video_heads=2,
    video_size=16,
    num_frames=3,
    patch=4,
    embed_dim=12,
)
TEXTS = ["a dog rolls left", "", "a ball rolls right right right", "球"]
SCALE = torch.tensor(10.0)


@pytest.fixture(scope="module")
def clip():
    torch.manual_seed(0)
    return CLIP(CONFIG, TOKENIZER).eval()


def unit(b, d=6, seed=0):
    return F.normalize(torch.randn(b, d, generator=torch.Generator().manual_seed(seed)), dim=-1)


@torch.no_grad()
def test_a_batch_of_texts_is_the_texts_one_by_one(clip):
    states, embeds = clip.encode_text(TEXTS)
    assert states.lengths == (6, 2, 8, 3)
    for one, text, embed in zip(states.split(), TEXTS, embeds):
        alone, alone_embed = clip.encode_text([text])
        torch.testing.assert_close(one.states, alone.states)
        torch.testing.assert_close(embed, alone_embed[0])


@torch.no_grad()
def test_a_batch_of_clips_is_the_clips_one_by_one(clip, precision):
    video = torch.rand(3, 3, 5, 16, 16) * 2 - 1
    with autocast(CPU, precision):
        together, alone = clip.encode_video(video), torch.cat([clip.encode_video(one[None]) for one in video])
    torch.testing.assert_close(together, alone, rtol=0, atol={"fp32": 1e-5, "bf16": 2e-2}[precision])


@torch.no_grad()
@pytest.mark.parametrize("shape", [(1, 16, 16), (2, 16, 16), (3, 40, 24), (17, 64, 96), (5, 9, 9)])
def test_embeddings_of_any_size_and_length_are_unit_vectors(clip, shape):
    embeds = clip.encode_video(torch.rand(2, 3, *shape) * 2 - 1)
    torch.testing.assert_close(embeds.norm(dim=-1), torch.ones(2))
    torch.testing.assert_close(clip.encode_text(TEXTS)[1].norm(dim=-1), torch.ones(4))


@torch.no_grad()
def test_every_word_sees_the_words_after_it(clip):
    left, right = (clip.encode_text([f"a dog rolls {way}"])[0].states for way in ("left", "right"))
    assert (left[1] - right[1]).abs().max() > 1e-4


@torch.no_grad()
def test_the_order_of_frames_matters(clip):
    video = torch.rand(1, 3, 3, 16, 16) * 2 - 1
    assert (clip.encode_video(video) - clip.encode_video(video.flip(2))).abs().max() > 1e-6


@torch.no_grad()
def test_larger_pictures_are_averaged_down(clip):
    video = torch.rand(1, 3, 3, 16, 16) * 2 - 1
    larger = video.repeat_interleave(3, dim=3).repeat_interleave(2, dim=4)
    torch.testing.assert_close(clip.encode_video(larger), clip.encode_video(video))


@pytest.mark.parametrize(
    ("given", "wanted", "frames", "positions"),
    [
        (1, 5, [0], [0]),
        (5, 5, [0, 1, 2, 3, 4], [0, 1, 2, 3, 4]),
        (17, 5, [0, 4, 8, 12, 16], [0, 1, 2, 3, 4]),
        (2, 5, [0, 1], [0, 4]),
        (9, 1, [0], [0]),
    ],
)
def test_frames_are_spread_over_the_clip_with_both_ends(given, wanted, frames, positions):
    assert spread_frames(given, wanted) == (frames, positions)


@torch.no_grad()
def test_similarity_is_the_cosine_of_every_pair(clip):
    video = torch.rand(2, 3, 3, 16, 16) * 2 - 1
    expected = F.cosine_similarity(
        clip.encode_video(video)[:, None], clip.encode_text(TEXTS)[1][None], dim=-1
    )
    torch.testing.assert_close(clip.similarity(video, TEXTS), expected)


def test_the_loss_without_foils_is_the_textbook_formula():
    video, text = unit(5, seed=1), unit(5, seed=2)
    loss, metrics = clip_loss(video, text, None, SCALE)
    logits = (SCALE * video @ text.T).exp()
    by_hand = (
        -(logits.diag() / logits.sum(1)).log().mean() / 2 - (logits.diag() / logits.sum(0)).log().mean() / 2
    )
    torch.testing.assert_close(loss, by_hand)
    assert metrics.keys() == {"retrieval"}


def test_the_loss_of_equal_embeddings_is_that_of_chance():
    same = unit(1).expand(8, -1)
    assert clip_loss(same, same, None, SCALE)[0].item() == pytest.approx(math.log(8), rel=1e-5)
    assert clip_loss(same, same, same, SCALE)[0].item() == pytest.approx(
        (math.log(16) + math.log(8)) / 2, rel=1e-5
    )


def test_foils_are_further_candidates_of_the_clips():
    video, text, foils = unit(4, seed=1), unit(4, seed=2), unit(4, seed=3)
    loss, metrics = clip_loss(video, text, foils, SCALE)
    candidates = (SCALE * video @ torch.cat([text, foils]).T).log_softmax(dim=1)
    texts = (SCALE * text @ video.T).log_softmax(dim=1)
    torch.testing.assert_close(loss, -(candidates.diag().mean() + texts.diag().mean()) / 2)
    wins = ((video * text).sum(1) > (video * foils).sum(1)).float().mean()
    assert metrics["foil"] == wins


def test_the_loss_does_not_depend_on_the_order_of_the_batch():
    video, text, foils = unit(6, seed=1), unit(6, seed=2), unit(6, seed=3)
    order = torch.randperm(6)
    torch.testing.assert_close(
        clip_loss(video, text, foils, SCALE), clip_loss(video[order], text[order], foils[order], SCALE)
    )


def test_gradients_reach_every_parameter():
    torch.manual_seed(0)
    clip = CLIP(CONFIG, TOKENIZER)
    video = torch.rand(2, 3, 3, 16, 16) * 2 - 1
    texts = clip.encode_text(["a dog rolls left", "a ball"])[1]
    foils = clip.encode_text(["a dog rolls right", "a dog"])[1]
    clip_loss(clip.encode_video(video), texts, foils, clip.logit_scale())[0].backward()
    still = [
        name
        for name, parameter in clip.named_parameters()
        if parameter.grad is None or not parameter.grad.abs().sum() > 0
    ]
    assert still == []


def test_the_scale_is_learned_but_at_most_100():
    clip = CLIP(CONFIG, TOKENIZER)
    assert clip.logit_scale().item() == pytest.approx(1 / 0.07)
    with torch.no_grad():
        clip.log_scale.fill_(10.0)
    assert clip.logit_scale().item() == 100


def test_the_direction_of_motion_is_learned():
    """A square that moves left or right: what one frame cannot tell, the two towers agree on after a few
    steps.
    """
    torch.manual_seed(0)
    clip = CLIP(CONFIG, TOKENIZER)
    right = torch.full((1, 3, 3, 16, 16), -1.0)
    for frame in range(3):
        right[:, :, frame, 6:10, 2 + 4 * frame : 6 + 4 * frame] = 1.0
    video = torch.cat([right.flip(2), right])
    texts = ["a ball rolls left", "a ball rolls right"]
    optimizer = torch.optim.AdamW(clip.parameters(), lr=1e-3)
    for _ in range(60):
        loss, metrics = clip_loss(
            clip.encode_video(video), clip.encode_text(texts)[1], None, clip.logit_scale()
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.1
    assert metrics["retrieval"] == 1


@pytest.mark.parametrize(
    "wrong",
    [
        {"patch": 6},
        {"patch": 1},
        {"video_size": 18},
        {"text_heads": 3},
        {"video_heads": 5},
        {"num_frames": 0},
    ],
)
def test_sizes_that_do_not_fit_are_an_error_that_names_them(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        replace(CONFIG, **wrong)


def test_a_tokenizer_of_another_vocabulary_is_an_error():
    with pytest.raises(ConfigError, match=rf"has {len(TOKENIZER)} tokens.*takes 99"):
        CLIP(replace(CONFIG, vocabulary_size=99), TOKENIZER)
