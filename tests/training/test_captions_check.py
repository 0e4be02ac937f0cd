"""Captions that the text encoder does not know stop a run before it starts."""

import logging

import pytest

from kinema.checkpoints.components import load_clip
from kinema.checkpoints.folders import resolve_model
from kinema.errors import DataError
from kinema.models.clip import CLIP, CLIPConfig
from kinema.prompts.bpe_tokenizer import BPETokenizer
from kinema.training.captions_check import check_captions

STREET = "a man in a red coat walks his dog through a rainy street in Tokyo"
ADVICE = "train a CLIP on them (kinema train recipes/clip.toml --data ds/)"


@pytest.fixture(scope="module")
def shipped():
    return load_clip(resolve_model("shipped"))


@pytest.fixture(scope="module")
def own():
    tokenizer = BPETokenizer.train([STREET, "一只狗"], max_length=40)
    sizes = {"text_width": 16, "text_layers": 1, "text_heads": 2, "video_width": 16, "video_layers": 1}
    return CLIP(CLIPConfig(len(tokenizer), max_length=40, video_heads=2, embed_dim=16, **sizes), tokenizer)


def check(captions, encoder, max_unknown=0.05):
    check_captions(captions, encoder, max_unknown=max_unknown, data="ds/", advice=ADVICE)


def test_captions_outside_a_closed_vocabulary_stop_the_run_and_name_what_is_lost(shipped):
    with pytest.raises(DataError) as error:
        check([STREET] * 3, shipped)
    text = str(error.value)
    assert "\n" not in text
    for part in ("of the words in the captions of ds/", "man (left out) 3", "dog (read as horse) 3"):
        assert part in text
    assert f"{ADVICE}, or allow it with --set max_unknown=0." in text


def test_a_clip_of_these_captions_knows_every_word(own, caplog):
    with caplog.at_level(logging.INFO):
        check([STREET, "一只狗"], own)
    assert "knows all 18 words" in caplog.text


def test_a_few_unknown_words_are_a_warning_with_their_number(own, caplog):
    check([STREET] * 9 + [STREET + " umbrella"], own)
    assert "does not know 0.7% of the words in the captions of ds/ (1 of 151; " in caplog.text
    assert "most frequent: umbrella 1)" in caplog.text


def test_captions_in_a_script_that_the_tokenizer_has_not_met_are_named(own):
    with pytest.raises(DataError, match="has not been trained on text in Cyrillic"):
        check([STREET, "собака бежит"], own)


def test_a_higher_threshold_allows_it(shipped):
    check([STREET], shipped, max_unknown=0.6)
