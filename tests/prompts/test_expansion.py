"""An expansion keeps what the user named: it is proposed again, repaired or refused."""

import json

import pytest
from tests.endpoints import serving

import kinema
from kinema.endpoint import Endpoint
from kinema.errors import RequestError
from kinema.generation.request import Request
from kinema.prompts.expansion import INSTRUCTIONS, ChatExpander, expand
from kinema.prompts.fidelity import omissions


class PreparedExpander:
    """An expander that gives prepared answers and repeats the last one."""

    name = "prepared"
    words = ()

    def __init__(self, *answers: str) -> None:
        self.answers = list(answers)
        self.missing: list[list[str]] = []

    def propose(self, prompt, kind, *, picture, missing, seed):
        self.missing.append([str(item) for item in missing])
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


@pytest.mark.parametrize(
    ("prompt", "expansion", "what"),
    [
        ("a dog runs", "Dogs are running in a park", []),
        ("2 dogs run", "two dogs run in a park", []),
        ("三只猫在奔跑", "夜晚，三只猫在草地上奔跑", []),
        ("a dog runs", "a puppy runs in a park", ["the word 'dog'"]),
        ("two dogs run", "dogs run in a park", ["the number 'two'"]),
        ("two dogs run", "three dogs run", ["the number 'two', and says otherwise"]),
        ('a sign "OPEN"', "a sign that is open", ["the quote 'OPEN'"]),
        ("a dog, no snow", "a dog in the snow", ["the negation 'no snow', and says otherwise"]),
        (
            "a dog without clouds",
            "a dog under a sky without any clouds, cloudy",
            ["the negation 'without clouds', and says otherwise"],
        ),
        ("一只狗，没有雪", "一只狗在草地上", ["the negation '没有雪'", "the word '雪'"]),
        ("三只猫", "两只猫", ["the number '三', and says otherwise"]),
        ("Ada Lovelace walks", "Ada walks", ["the word 'lovelace'"]),
    ],
)
def test_omissions_are_found(prompt, expansion, what):
    assert [str(item) for item in omissions(prompt, expansion)] == what


def test_a_prompt_omits_nothing_of_itself():
    for prompt in (
        "3 quokkas don't jump, no snow",
        "《红楼梦》没有雪的三只狗",
        'never "two" or 1,000.5',
        "not without neither",
    ):
        assert not omissions(prompt, prompt)
        assert not omissions(prompt, f"{prompt}. Something else runs on a road at dawn")


def test_an_expander_that_omits_something_is_asked_again():
    expander = PreparedExpander("a puppy in a park", "a dog runs in a park")
    done = expand("a dog runs", expander)
    assert (done.prompt, done.repaired) == ("a dog runs in a park", ())
    assert expander.missing == [[], ["the word 'dog'", "the word 'runs'"]]


def test_after_a_second_omission_the_original_is_put_in_front():
    done = expand("a dog runs.", PreparedExpander("a puppy in a park"))
    assert done.prompt == "a dog runs. a puppy in a park"
    assert "the expander omitted the word 'dog', the word 'runs'" in done.lines[-1]


@pytest.mark.parametrize(
    ("prompt", "answer"),
    [
        ("two dogs run", "three dogs run"),
        ("a dog runs, no snow", "a dog runs in the snow"),
        ("a dog runs", " "),
    ],
)
def test_a_contradiction_is_refused(prompt, answer):
    with pytest.raises(RequestError, match=r"the expansion by prepared lost .*Leave --expand out"):
        expand(prompt, PreparedExpander(answer))


def test_nothing_to_expand_and_too_much_are_refused():
    with pytest.raises(RequestError, match="no prompt to expand"):
        expand("  ", PreparedExpander("anything"))
    with pytest.raises(RequestError, match="at most 2000"):
        expand("a dog", PreparedExpander("a dog " * 500))


def test_the_wrapping_of_an_answer_is_removed():
    assert expand("a dog", PreparedExpander('Rewritten: "a dog\n runs"')).prompt == "a dog runs"
    assert expand('a sign "OPEN"', PreparedExpander('a red sign "OPEN"')).prompt == 'a red sign "OPEN"'


@pytest.mark.parametrize("kind", list(INSTRUCTIONS))
def test_an_endpoint_gets_the_instructions_of_its_kind(kind):
    with serving(lambda body: "a dog runs in a park") as (url, asked):
        done = expand("a dog runs", ChatExpander(Endpoint(url, model="m")), kind=kind, picture=b"png")
    assert (done.prompt, done.expander) == ("a dog runs in a park", "m (endpoint)")
    assert asked[0]["messages"][0]["content"].startswith(INSTRUCTIONS[kind])
    assert asked[0]["messages"][1]["content"][1]["image_url"]["url"].startswith("data:image/png;base64,")
    assert url not in json.dumps(done.fields)


def test_both_prompts_travel_with_a_request():
    fields = expand("a dog", PreparedExpander("a dog runs")).fields
    request = Request(**fields)
    assert (request.prompt, request.original_prompt, request.expander) == ("a dog runs", "a dog", "prepared")
    assert Request.from_json(request.to_json()) == request
    assert "original_prompt" not in Request("a dog").to_dict()
    with pytest.raises(RequestError, match="the original prompt has 3000 characters"):
        Request("a dog", original_prompt="x" * 3000)


def test_expansion_is_off_unless_asked_and_is_stored(model_folder, tmp_path):
    options = {"model": str(model_folder), "frames": 1, "steps": 1}
    assert kinema.generate("a fox runs", **options).plan.request.original_prompt is None
    with serving(lambda body: "a red fox runs across the meadow") as (url, _):
        result = kinema.generate("a fox runs", expand=True, expander=url, **options)
    assert result.provenance["request"]["prompt"] == "a red fox runs across the meadow"
    assert result.provenance["request"]["original_prompt"] == "a fox runs"


def test_an_edit_and_a_picture_have_their_own_instructions(model_folder, tmp_path):
    import numpy as np

    options = {"model": str(model_folder), "steps": 1, "expand": True}
    clip = kinema.Video(np.zeros((9, 32, 48, 3), np.uint8), 8.0)
    with serving(lambda body: "a red fox runs") as (url, asked):
        kinema.edit(clip, "a fox runs", strength=0.5, expander=url, width=48, height=32, **options)
        kinema.animate(
            "a fox runs", first=kinema.Video(clip.frames[:1], 8.0), frames=5, expander=url, **options
        )
    told = [body["messages"][0]["content"] for body in asked]
    assert [text.startswith(INSTRUCTIONS[kind]) for text, kind in zip(told, ("edit", "image"))] == [
        True,
        True,
    ]
    assert all(body["messages"][1]["content"][1]["type"] == "image_url" for body in asked)
