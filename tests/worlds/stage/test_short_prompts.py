"""Pairs of a user's prompt and its expansion: no word is lost, and the expansion names what was left open."""

import random

import pytest

from kinema.models.expander import PROMPT_KINDS
from kinema.worlds.stage import grammar
from kinema.worlds.stage.short_prompts import UNKNOWN_WORDS, is_complete, prompt_pair, subject_prompt
from kinema.worlds.stage.world import StageConfig, StageWorld

WORLD = StageWorld(
    StageConfig(nouns=24, cameras=("still",), split="all", verbs=("roll", "fall", "fly", "walk"))
)
TRUTHS = [WORLD.truth(seed, num_frames=9) for seed in range(60)]


def pairs(kind: str, language: str) -> list[tuple[str, str]]:
    return [prompt_pair(truth, kind, language, random.Random(seed)) for seed, truth in enumerate(TRUTHS)]


def words(text: str, language: str) -> list[str]:
    return text.split() if language == "en" else list(text)


@pytest.mark.parametrize("kind", PROMPT_KINDS)
@pytest.mark.parametrize("language", ["en", "zh"])
def test_an_expansion_has_the_words_of_the_prompt_in_their_order(kind, language):
    for prompt, expansion in pairs(kind, language):
        rest = iter(words(expansion.replace(". ", " . ").replace(",", " ,"), language))
        assert all(
            any(word == other for other in rest) for word in words(prompt.replace(",", " ,"), language)
        )


@pytest.mark.parametrize("language", ["en", "zh"])
def test_unknown_words_are_in_both_texts(language):
    unknown = UNKNOWN_WORDS[language]
    made = pairs("text", language)
    assert 0 < sum(unknown in prompt for prompt, _ in made) < len(made)
    assert all(prompt.count(unknown) == expansion.count(unknown) for prompt, expansion in made)
    assert unknown not in WORLD.words


def test_a_picture_gives_ground_and_sky_and_an_edit_only_the_style():
    for prompt, expansion in pairs("image", "en"):
        for slot in ("ground", "sky"):
            added = [text for text in grammar.optional_phrases("en")[slot] if text in expansion]
            assert all(text in prompt or text.split()[-1] in prompt for text in added)
    for prompt, expansion in pairs("edit", "en"):
        assert expansion.removeprefix(f"{prompt}. ") in grammar.STYLES


@pytest.mark.parametrize("language", ["en", "zh"])
def test_a_medium_caption_is_complete_and_a_subject_is_not(language):
    for seed, truth in enumerate(TRUTHS):
        assert is_complete(WORLD.caption(truth, "medium", language), language)
        subject = subject_prompt(truth, language, random.Random(seed), with_verb=False)
        assert not is_complete(subject, language)
        longer = subject_prompt(truth, language, random.Random(seed), with_verb=True)
        assert longer.startswith(subject)
        assert len(longer) > len(subject)
