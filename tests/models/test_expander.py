"""The expander only ever inserts: whatever its weights say, the user's words stand in the result, in their
order.
"""

import pytest
import torch

from kinema.checkpoints.components import load_component, save_component
from kinema.errors import ConfigError
from kinema.models.expander import (
    COPY,
    PROMPT_KINDS,
    UNKNOWN,
    Expander,
    ExpanderConfig,
    PromptToken,
    join_tokens,
)

WORDS = (
    "a",
    "penguin",
    "walks",
    "on",
    "snow",
    "at",
    "night",
    "small",
    "the",
    "一",
    "只",
    "企鹅",
    "行走",
    "夜晚",
)
PROMPTS = [
    "a quokka walks",
    'An Elephant, "OPEN 24 h", no snow; 3.5 Meters!',
    "一只水豚行走，没有雪",
    "  Rotkäppchen\twalks…  twice ",
    "medium-sized don't",
    "",
]


def tiny(seed: int = 0) -> Expander:
    torch.manual_seed(seed)
    return Expander(ExpanderConfig(words=WORDS, width=16, layers=1, heads=2, hidden=16, max_length=8)).eval()


@pytest.mark.parametrize("prompt", PROMPTS)
def test_tokens_are_the_prompt(prompt):
    assert "".join(token.space + token.text for token in tiny().read(prompt)) == prompt.rstrip()


@pytest.mark.parametrize("prompt", PROMPTS)
@pytest.mark.parametrize("kind", PROMPT_KINDS)
def test_random_weights_lose_no_word_and_no_order(prompt, kind):
    for seed in range(5):
        made = tiny(seed).expand(prompt, kind=kind, seed=seed, top_p=1.0)
        rest = iter(made)
        articles = {"A", "a", "An", "an"}
        for token in tiny().read(prompt):
            if token.text not in articles:  # `a` may become `an`
                assert all(any(letter == other for other in rest) for letter in token.text), (prompt, made)


def test_nothing_goes_inside_quotes_and_words():
    for seed in range(5):
        made = tiny(seed).expand('a sign "no  snow, at all" and half-open', seed=seed, top_p=1.0)
        assert '"no  snow, at all"' in made
        assert "half-open" in made


def test_only_allowed_words_are_added():
    for seed in range(5):
        assert tiny(seed).expand("quokka", seed=seed, top_p=1.0, may_add=lambda word: False) == "quokka"
        assert "snow" not in tiny(seed).expand(
            "quokka", seed=seed, top_p=1.0, may_add=lambda word: word != "snow"
        )


def test_one_seed_is_one_expansion():
    expander = tiny()
    assert expander.expand("a penguin", seed=3, top_p=1.0) == expander.expand("a penguin", seed=3, top_p=1.0)
    assert len({expander.expand("a penguin", seed=seed, top_p=1.0) for seed in range(8)}) > 1


def test_training_and_writing_agree():
    expander = tiny()
    source = expander.source("text", [expander.ids["a"], expander.ids[UNKNOWN], expander.ids["walks"]])
    steps = [0, expander.ids["small"], 0, 0, expander.ids["night"], 0]
    logits, is_step = expander([source, source[:2] + source[-1:]], [steps, [0, 0]])
    assert is_step.sum(dim=1).tolist() == [6, 2]
    (states,) = expander.encode([source])
    state, at, previous = None, 1, source[0]
    for step, expected in zip(steps, logits[0]):
        hidden, state = expander.gru(
            torch.cat([expander.embed.weight[previous], states[at]])[None, None], state
        )
        assert torch.allclose(expander.logits(hidden[0, 0]), expected, atol=1e-5)
        previous, at = (source[at], at + 1) if step == 0 else (step, at)


def test_words_are_read_as_what_stands_in_for_them():
    expander = tiny()
    ids = {token.text: token.reading for token in expander.read("An unheardof penguins 企鹅")}
    assert ids == {
        "An": expander.ids["a"],
        "unheardof": expander.ids[UNKNOWN],
        "penguins": expander.ids["penguin"],
        "企鹅": expander.ids["企鹅"],
    }


def test_articles_marks_and_chinese_are_spelt():
    own, given = True, False
    words = [("a", given), ("old", own), ("dog", given), (".", own), ("it", own), ("runs", own)]
    assert (
        join_tokens([PromptToken(text, " ", 0) for text, _ in words], [flag for _, flag in words]).strip()
        == "an old dog. It runs"
    )
    assert (
        join_tokens(
            [PromptToken("夜晚", "", 0), PromptToken("，", "", 0), PromptToken("一", "", 0)],
            [True, True, False],
        )
        == "夜晚，一"
    )


def test_a_folder_gives_the_same_expander(tmp_path):
    expander = tiny()
    save_component(tmp_path / "expander", expander)
    again = load_component(tmp_path / "expander", Expander)
    assert again.expand("a quokka", seed=1, top_p=1.0) == expander.expand("a quokka", seed=1, top_p=1.0)
    assert again.tokens[0] == COPY


def test_sizes_that_do_not_divide_are_refused():
    with pytest.raises(ConfigError, match="multiple of heads"):
        ExpanderConfig(width=10, heads=4)


def test_a_sentence_ends_in_an_edit_only():
    for seed in range(20):
        assert "." not in tiny(seed).expand("a quokka", seed=seed, top_p=1.0)
    assert any("." in tiny(seed).expand("a quokka", kind="edit", seed=seed, top_p=1.0) for seed in range(20))
