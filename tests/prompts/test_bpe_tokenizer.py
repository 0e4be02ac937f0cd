"""The open vocabulary: any text has ids and comes back from them; words that no caption had are reported."""

import json
import subprocess
import sys

import pytest
from tokenizers.decoders import ByteLevel

from kinema.errors import ConfigError, ModelError
from kinema.prompts import load_tokenizer
from kinema.prompts.bpe_tokenizer import BPETokenizer
from kinema.prompts.reading import WordUse, read_prompt
from kinema.prompts.word_tokenizer import WordTokenizer

CAPTIONS = (
    "A man in a red coat walks his dog through a rainy street in Tokyo.",
    "一只狗在东京的街上散步",
    "Собака бежит по улице",
    "कुत्ता सड़क पर चलता है",
)


@pytest.fixture(scope="module")
def tokenizer():
    return BPETokenizer.train(CAPTIONS, max_length=32)


@pytest.mark.parametrize("caption", CAPTIONS)
def test_every_word_of_the_captions_is_known_and_read_as_written(tokenizer, caption):
    report = read_prompt(tokenizer, caption)
    assert report.text == ""
    assert report.num_read == len(report.uses) > 3


@pytest.mark.parametrize("text", ["umbrella", "猫", "παράθυρο", "ひらがな", "हाथी", "7", "żółw"])
def test_any_text_comes_back_from_its_ids(tokenizer, text):
    tokens = [tokenizer.bpe.id_to_token(i) for i in tokenizer.encode(text)[1:-1]]
    assert ByteLevel().decode(tokens) == text


def test_a_frequent_word_is_one_token_and_the_empty_text_is_its_two_ends(tokenizer):
    assert len(tokenizer.encode("street")) == 3
    assert tokenizer.encode("") == tokenizer.encode(" ,.!") == [1, 2]


def test_case_width_and_possessives_do_not_matter(tokenizer):
    assert tokenizer.encode("THE ＤＯＧ's coat") == tokenizer.encode("the dog coat")


def test_a_word_that_no_caption_had_is_spelled_and_reported(tokenizer):
    assert tokenizer.explain("dogs") == (WordUse("dogs", "dogs", False),)
    report = read_prompt(tokenizer, "a horse, a horse and 猫")
    assert report.unfamiliar == ("horse", "and", "猫")
    assert report.scripts == report.replaced == report.unknown == ()
    assert "spelled 'horse', 'and', '猫' (not in the captions" in report.text


def test_a_script_that_no_caption_was_written_in_is_named(tokenizer):
    report = read_prompt(tokenizer, "a dog παράθυρο 창문")
    assert report.scripts == ("Greek", "Hangul")
    assert "no caption of the model's training is written in Greek or Hangul" in report.text


def test_words_past_the_longest_length_are_left_out_and_reported(tokenizer):
    text = "a dog " * 16
    assert len(tokenizer.encode(text)) == tokenizer.max_length
    assert read_prompt(tokenizer, text).cut == ("a", "dog")


def test_a_limited_tokenizer_keeps_its_ids_and_reports_the_other_words(tokenizer):
    limited = tokenizer.limited(["A dog", "狗"])
    assert limited.encode("man and 狗") == tokenizer.encode("man and 狗")
    assert limited.words == ("a", "dog", "狗")
    assert read_prompt(limited, "a man").unfamiliar == ("man",)


def test_the_file_names_its_class_and_gives_the_same_ids(tokenizer, tmp_path):
    path = tmp_path / "tokenizer.json"
    tokenizer.save(path)
    again = load_tokenizer(path)
    assert isinstance(again, BPETokenizer)
    assert (len(again), again.max_length, again.words) == (len(tokenizer), 32, tokenizer.words)
    assert [again.encode(text) for text in CAPTIONS] == [tokenizer.encode(text) for text in CAPTIONS]

    WordTokenizer(["dog"]).save(path)
    assert isinstance(load_tokenizer(path), WordTokenizer)


def test_tokens_do_not_depend_on_the_order_of_the_captions_or_on_the_process(tokenizer, tmp_path):
    script = (
        "import sys, pathlib; from kinema.prompts.bpe_tokenizer import BPETokenizer; "
        "BPETokenizer.train(sys.argv[:1:-1], max_length=32).save(pathlib.Path(sys.argv[1]))"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path / "other.json"), *CAPTIONS], check=True)
    tokenizer.save(tmp_path / "this.json")
    assert (tmp_path / "other.json").read_bytes() == (tmp_path / "this.json").read_bytes()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"format": "other"}, "instead of kinema-words-1 or kinema-bpe-1"),
        ({"format": "kinema-bpe-1", "max_length": 8}, "must hold format 'kinema-bpe-1', max_length"),
        ({"format": "kinema-bpe-1", "max_length": 8, "words": [], "bpe": {}}, "bpe is not a tokenizer"),
    ],
)
def test_a_file_that_is_no_tokenizer_is_an_error_that_names_it(tmp_path, content, message):
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(content))
    with pytest.raises(ModelError, match=message) as error:
        load_tokenizer(path)
    assert str(path) in str(error.value)


def test_fewer_tokens_than_bytes_are_an_error():
    with pytest.raises(ConfigError, match="use 259 or more"):
        BPETokenizer.train(CAPTIONS, max_tokens=200)
