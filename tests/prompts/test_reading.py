"""How a prompt was read, in words."""

import pytest

from kinema.prompts.reading import PromptReport, WordUse, read_prompt
from kinema.prompts.word_tokenizer import WordTokenizer

TABLE = {"puppy": ("dog",), "meadow": ()}


@pytest.fixture
def tokenizer():
    return WordTokenizer(["a", "red", "dog", "runs"], max_length=8, table=TABLE)


def test_known_words_need_no_remark(tokenizer):
    report = read_prompt(tokenizer, "A red dog runs.")
    assert report == PromptReport(tuple(WordUse(word, word, True) for word in ("a", "red", "dog", "runs")))
    assert report.num_read == 4
    assert report.text == ""


def test_replaced_and_unknown_words_are_named_once(tokenizer):
    report = read_prompt(tokenizer, "puppy puppy xyzzy qqq runs")
    assert report.replaced == (("puppy", "dog"),)
    assert report.unknown == ("xyzzy", "qqq")
    assert "'puppy' as 'dog'" in report.text
    assert "left out 'xyzzy', 'qqq'" in report.text


def test_a_long_prompt_says_where_it_is_cut(tokenizer):
    report = read_prompt(tokenizer, "a red dog runs a red dog runs a")
    assert len(report.cut) == 3
    assert report.num_read == 6
    assert "last 3 words, from 'dog' on" in report.text


def test_a_prompt_without_a_known_word_says_so(tokenizer):
    report = read_prompt(tokenizer, "xyzzy")
    assert report.num_read == 0
    assert "no word is left" in report.text
