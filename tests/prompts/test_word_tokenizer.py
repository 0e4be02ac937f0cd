import json

import pytest

from kinema.errors import ModelError
from kinema.prompts.reading import WordUse
from kinema.prompts.segment import pieces, segment_chinese
from kinema.prompts.synonyms import correct_spelling, load_synonyms, substitute
from kinema.prompts.word_tokenizer import WordTokenizer

WORDS = [
    "a",
    "the",
    "soccer ball",
    "dog",
    "dogs",
    "Fox",
    "rolls",
    "flies",
    "on",
    "snow",
    "two",
    "一只",
    "狗",
    "向右",
    "滚动",
    "球",
    "足球",
    "雪地",
]
TABLE = {
    "puppy": ("small dog", "dog"),
    "please": (),
    "football": ("soccer ball",),
    "小狗": ("狗",),
    "请": (),
    "car": ("truck",),
}


@pytest.fixture
def tokenizer():
    return WordTokenizer(WORDS, max_length=8, table=TABLE)


def used(tokenizer, text):
    return [use.used for use in tokenizer.explain(text)]


def test_special_tokens_come_first_and_words_are_sorted(tokenizer):
    assert tokenizer.tokens[:3] == ("<pad>", "<bos>", "<eos>")
    assert list(tokenizer.words) == sorted(tokenizer.words)
    assert {"soccer", "ball", "fox", "足球"} <= set(tokenizer.words)


def test_ids_do_not_depend_on_the_order_of_the_words():
    assert WordTokenizer(WORDS).tokens == WordTokenizer(reversed(WORDS)).tokens


@pytest.mark.parametrize("text", ["the fox rolls on snow", "一只狗向右滚动", "a soccer ball 向右滚动"])
def test_known_text_comes_back_from_its_ids(tokenizer, text):
    ids = tokenizer.encode(text)
    assert (ids[0], ids[-1]) == (1, 2)
    assert "".join(tokenizer.tokens[i] for i in ids[1:-1]) == text.replace(" ", "")


def test_the_empty_text_is_its_two_ends(tokenizer):
    assert tokenizer.encode("") == tokenizer.encode(" ,. !") == [1, 2]


@pytest.mark.parametrize(
    "text", ["The FOX, rolls!", "the fox-rolls", "ｔｈｅ fox's rolls", "the\n“fox” rolls…"]
)
def test_case_width_and_punctuation_do_not_matter(tokenizer, text):
    assert tokenizer.encode(text) == tokenizer.encode("the fox rolls")


def test_chinese_is_cut_at_the_longest_known_words(tokenizer):
    assert used(tokenizer, "足球、球，一只狗") == ["足球", "球", "一只", "狗"]


@pytest.mark.parametrize(
    ("word", "form"),
    [
        ("foxes", "fox"),
        ("rolling", "rolls"),
        ("roll", "rolls"),
        ("rolled", "rolls"),
        ("snowy", "snow"),
        ("flying", "flies"),
        ("2", "two"),
    ],
)
def test_another_form_of_a_known_word_is_known(tokenizer, word, form):
    assert tokenizer.explain(word) == (WordUse(word, form, True),)


def test_a_form_that_the_vocabulary_has_is_kept(tokenizer):
    assert used(tokenizer, "dogs dog") == ["dogs", "dog"]


@pytest.mark.parametrize(
    ("word", "phrase"),
    [("football", "soccer ball"), ("puppy", "dog"), ("puppies", "dog"), ("小狗", "狗"), ("rollz", "rolls")],
)
def test_an_unknown_word_is_read_as_its_substitute_and_reported(tokenizer, word, phrase):
    assert tokenizer.explain(word) == (WordUse(word, phrase, False),)
    assert tokenizer.encode(word) == tokenizer.encode(phrase)


@pytest.mark.parametrize("word", ["please", "请", "quantum", "car", "42", "量子"])
def test_a_word_without_a_substitute_is_left_out_and_reported(tokenizer, word):
    assert tokenizer.explain(word) == (WordUse(word, None, False),)
    assert tokenizer.encode(f"the {word} dog") == tokenizer.encode("the dog")


def test_known_chinese_is_never_cut_by_the_synonyms():
    tokenizer = WordTokenizer(["白", "狗熊", "白狗"], table={"白狗熊": ("白狗",)})
    assert used(tokenizer, "白狗熊") == ["白狗"]
    assert used(tokenizer, "白狗狗熊") == ["白狗", "狗熊"]


def test_words_past_the_longest_length_are_left_out_and_reported(tokenizer):
    text = "a dog rolls on snow the puppy flies"
    uses = tokenizer.explain(text)
    assert [use.used for use in uses] == ["a", "dog", "rolls", "on", "snow", "the", None, None]
    assert all(use.known for use in uses)
    assert len(tokenizer.encode(text)) == tokenizer.max_length


def test_a_saved_tokenizer_comes_back(tokenizer, tmp_path):
    tokenizer.save(tmp_path / "tokenizer.json")
    loaded = WordTokenizer.load(tmp_path / "tokenizer.json")
    assert (loaded.tokens, loaded.max_length) == (tokenizer.tokens, tokenizer.max_length)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "Expecting"),
        ("[]", "does not hold a JSON object"),
        ('{"format": "other"}', "is not a Kinema tokenizer"),
        ('{"format": "kinema-words-1", "max_length": 8, "tokens": ["a", "b"]}', "the tokens are not"),
        (
            '{"format": "kinema-words-1", "max_length": 8, "tokens": ["<pad>", "<bos>", "<eos>", "b", "a"]}',
            "the tokens are not",
        ),
        ('{"format": "kinema-words-1", "tokens": []}', "max_length"),
        ('{"format": "kinema-words-1", "max_length": "8", "tokens": []}', "is not a Kinema tokenizer"),
        (
            '{"format": "kinema-words-1", "max_length": 8, "tokens": [1, 2, 3, 4]}',
            "is not a Kinema tokenizer",
        ),
    ],
)
def test_a_file_that_is_no_tokenizer_is_an_error_that_names_it(tmp_path, content, message):
    path = tmp_path / "tokenizer.json"
    path.write_text(content)
    with pytest.raises(ModelError, match=message) as error:
        WordTokenizer.load(path)
    assert str(path) in str(error.value)


def test_a_substitute_is_the_first_phrase_whose_words_are_all_known():
    table = {"puppy": ("small dog", "dog")}
    assert substitute("puppy", {"dog"}.__contains__, table) == "dog"
    assert substitute("puppy", {"dog", "small"}.__contains__, table) == "small dog"
    assert substitute("puppy", set().__contains__, table) is None


def test_an_unknown_substitute_is_substituted_in_turn():
    table = {"puppy": ("dog",), "dog": ("cat", "fox")}
    assert substitute("puppy", {"fox"}.__contains__, table) == "fox"


def test_only_longer_words_are_corrected_and_only_to_near_ones():
    assert correct_spelling("elephent", ("elephant", "dog")) == "elephant"
    assert correct_spelling("dgo", ("dog",)) is None
    assert correct_spelling("zebra", ("elephant", "dog")) is None


def test_the_shipped_synonyms_are_readable_and_small():
    table = load_synonyms()
    assert len(table) > 1000
    assert len(json.dumps(list(table.items()), ensure_ascii=False).encode()) < 600_000
    assert all(word == "".join(pieces(word)) for word in table)


def test_a_limited_tokenizer_keeps_its_ids_and_reads_the_rest_as_unknown(tmp_path):
    whole = WordTokenizer(["rocket", "puppy", "dog", "rises"], table={"puppy": ("dog",)})
    limited = whole.limited(["dog", "rises"])
    assert limited.encode("dog rises") == whole.encode("dog rises")
    assert limited.explain("puppy") == (WordUse("puppy", "dog", False),)
    limited.save(tmp_path / "tokenizer.json")
    again = WordTokenizer.load(tmp_path / "tokenizer.json")
    assert (again.tokens, again.understood) == (whole.tokens, ("dog", "rises"))


def test_segments_of_chinese_join_to_the_run_and_unknown_neighbours_are_one_word():
    known = {"狗", "白狗", "足球"}
    assert segment_chinese("白狗量子足球", known, 2) == ["白狗", "量子", "足球"]
    assert segment_chinese("白狗", known, 1) == ["白", "狗"]
    assert segment_chinese("", known, 2) == []
