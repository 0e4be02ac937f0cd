import random
import re

import pytest

from kinema.errors import RequestError
from kinema.worlds import CAPTION_KEYS
from kinema.worlds.stage import StageConfig, StageWorld, grammar
from kinema.worlds.stage.nouns import NOUNS
from kinema.worlds.stage.verbs import VERBS_OF

WORLD = StageWorld(StageConfig(nouns=len(NOUNS), split="all"))
TINY = {"height": 8, "width": 8}


@pytest.fixture(scope="module")
def clips():
    return [WORLD.clip(seed, num_frames=(1, 17, 49)[seed % 3], **TINY) for seed in range(500)]


def words(caption: str) -> list[str]:
    return re.findall(r"[a-z]+(?:-[a-z]+)*", caption.lower())


def splits_into(text: str, vocabulary: set[str]) -> bool:
    reachable = {0}
    longest = max(map(len, vocabulary))
    for end in range(1, len(text) + 1):
        if any(
            start in reachable and text[start:end] in vocabulary
            for start in range(max(0, end - longest), end)
        ):
            reachable.add(end)
    return len(text) in reachable


def test_every_form_is_there_in_both_languages(clips):
    for clip in clips:
        assert tuple(clip.captions) == CAPTION_KEYS
        assert all(clip.captions.values())
        assert "{" not in "".join(clip.captions.values())


def test_the_vocabulary_holds_every_word_of_every_caption(clips):
    vocabulary = set(WORLD.words)
    for clip in clips:
        for key in ("short", "medium", "detailed"):
            assert set(words(clip.captions[key])) <= vocabulary
            assert splits_into(clip.captions[key + "_zh"], vocabulary), clip.captions[key + "_zh"]


def test_medium_and_detailed_captions_name_every_slot(clips):
    for clip in clips:
        truth = clip.truth
        for form in ("medium", "detailed"):
            text = clip.captions[form].lower()
            noun = NOUNS[truth["noun"]]
            names = noun.words if truth["count"] == 1 else tuple(map(grammar.plural, noun.words))
            assert any(name in text for name in names)
            assert any(option in text for option in grammar.GROUND_WORDS[truth["ground"]])
            skies = [*grammar.SKY_WORDS[truth["sky"]], f"into the {grammar.INTO_SKY[truth['sky']]} sky"]
            assert any(option in text for option in skies)
            assert any(option in text for option in grammar.DIRECTIONS[truth["direction"]])
            if truth["other"]:
                assert any(name in text for name in NOUNS[truth["other"]].words)
            if truth["count"] > 1:
                assert grammar.COUNTS[truth["count"]] in text
            if truth["size"] != "regular":
                assert any(option in text for option in grammar.SIZES[truth["size"]])
            if truth["camera"] != "still" or form == "detailed":
                shown = [
                    option.format(it="it" if truth["count"] == 1 else "them")
                    for option in grammar.CAMERAS[truth["camera"]]
                ]
                assert any(option in text for option in shown)


def test_medium_captions_are_compact(clips):
    lengths = [len(words(clip.captions["medium"])) for clip in clips if clip.truth["num_frames"] <= 17]
    assert 10 <= sum(lengths) / len(lengths) <= 17


def test_the_demo_prompt_is_a_caption_of_the_grammar():
    world = StageWorld(
        StageConfig(
            nouns=("rocket",),
            verbs=("rise",),
            grounds=("snow",),
            skies=("night",),
            cameras=("still",),
            split="all",
        )
    )
    captions = {world.clip(seed, num_frames=9, **TINY).captions["medium"] for seed in range(60)}
    assert "a rocket rises into the night sky over a snowy plain" in captions


def test_captions_can_be_written_again_from_the_truth(clips):
    for clip in clips[:50]:
        for key, text in clip.captions.items():
            form, _, language = key.partition("_")
            assert WORLD.caption(clip.truth, form, language or "en") == text
    a, b = (WORLD.caption(clips[0].truth, "detailed", "en", random.Random(s)) for s in (1, 1))
    assert a == b
    with pytest.raises(RequestError, match="forms are short"):
        WORLD.caption(clips[0].truth, "long")


def test_a_foil_is_wrong_in_exactly_one_slot(clips):
    seen = set()
    for seed, clip in enumerate(clips):
        text, slot = WORLD.foil(clip, seed)
        seen.add(slot)
        assert text != clip.captions["medium"]
        assert text in {
            WORLD.caption({**clip.truth, slot: value}, "medium")
            for value in WORLD.foil_values(clip.truth, slot)
        }
        if slot in ("noun", "ground", "size", "direction", "camera"):
            # What differs is one stretch of words; the rest is word for word the same.
            true, false = words(clip.captions["medium"]), words(text)
            start = next(
                (i for i, pair in enumerate(zip(true, false)) if pair[0] != pair[1]),
                min(len(true), len(false)),
            )
            end = next(
                (i for i, pair in enumerate(zip(true[::-1], false[::-1])) if pair[0] != pair[1]),
                min(len(true), len(false)),
            )
            assert max(len(true), len(false)) - start - end <= 6, (clip.captions["medium"], text)
    assert seen == set(grammar.FOIL_SLOTS)


def test_a_foil_is_the_caption_of_a_truth_with_one_wrong_value(clips):
    for seed, clip in enumerate(clips):
        caption, slot = WORLD.foil(clip, seed)
        wrong = [{**clip.truth, slot: value} for value in WORLD.foil_values(clip.truth, slot)]
        assert caption in [WORLD.caption(truth, "medium") for truth in wrong]


def test_a_foil_keeps_to_what_the_noun_can_do(clips):
    for clip in clips:
        for value in WORLD.foil_values(clip.truth, "verb"):
            assert value in VERBS_OF[clip.truth["noun"]]
        for value in WORLD.foil_values(clip.truth, "noun"):
            assert clip.truth["verb"] in VERBS_OF[value]


@pytest.mark.parametrize(
    ("one", "many"),
    [
        ("fox", "foxes"),
        ("butterfly", "butterflies"),
        ("mouse", "mice"),
        ("bus", "buses"),
        ("christmas tree", "christmas trees"),
        ("monkey", "monkeys"),
    ],
)
def test_plurals(one, many):
    assert grammar.plural(one) == many


def test_articles():
    assert [grammar.article(word) for word in ("elephant", "ufo", "large apple")] == [
        "an elephant",
        "a ufo",
        "a large apple",
    ]
