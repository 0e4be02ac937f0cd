import base64
import socket
import time

import pytest
from tests.endpoints import serving

from kinema.endpoint import Endpoint
from kinema.errors import ConfigError, EndpointError


def test_question_and_answer_are_of_the_protocol(monkeypatch):
    monkeypatch.setenv("A_KEY", "secret")
    with serving(lambda body: "  a longer prompt \n") as (url, asked):
        endpoint = Endpoint(url, model="small", key_variable="A_KEY", temperature=0.5, max_tokens=20)
        assert endpoint.ask("be brief", "a dog", [b"png"]) == "a longer prompt"
    (body,) = asked
    assert (body["path"], body["model"], body["temperature"], body["max_tokens"]) == (
        "/v1/chat/completions",
        "small",
        0.5,
        20,
    )
    assert body["headers"]["Authorization"] == "Bearer secret"
    system, user = body["messages"]
    assert system == {"role": "system", "content": "be brief"}
    picture = "data:image/png;base64," + base64.b64encode(b"png").decode()
    assert user["content"] == [
        {"type": "text", "text": "a dog"},
        {"type": "image_url", "image_url": {"url": picture}},
    ]


def test_no_key_is_sent_when_none_is_set(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with serving(lambda body: "yes") as (url, asked):
        Endpoint(url).ask("", "a dog")
    assert "Authorization" not in asked[0]["headers"]
    assert asked[0]["messages"][1]["content"] == "a dog"


def test_a_busy_server_is_asked_again():
    answers = iter([(503, b"busy"), (429, b"slow down"), "done"])
    with serving(lambda body: next(answers)) as (url, asked):
        assert Endpoint(url, pause_s=0.01).ask("", "a dog") == "done"
    assert len(asked) == 3


def test_tries_end_and_the_last_reason_is_said():
    said = pytest.raises(
        EndpointError, match=r"/v1/chat/completions cannot be reached after 3 tries.*HTTP 500: out of memory"
    )
    with serving(lambda body: (500, b"out of\nmemory")) as (url, asked), said:
        Endpoint(url, retries=2, pause_s=0.01).ask("", "a dog")
    assert len(asked) == 3


def test_a_refusal_is_not_tried_again_and_hides_the_key(monkeypatch):
    monkeypatch.setenv("A_KEY", "secret")
    said = pytest.raises(EndpointError, match=r"refused: HTTP 401.*environment variable A_KEY")
    with serving(lambda body: (401, b'{"error": "bad key"}')) as (url, asked), said as raised:
        Endpoint(url, key_variable="A_KEY").ask("", "a dog")
    assert len(asked) == 1
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize(
    "said", [b"not json", b"[]", b'{"choices": []}', b'{"choices": [{"message": {"content": null}}]}', b""]
)
def test_an_answer_of_another_protocol_is_shown(said):
    with (
        serving(lambda body: (200, said)) as (url, _),
        pytest.raises(EndpointError, match="gave no chat completion"),
    ):
        Endpoint(url).ask("", "a dog")


def test_a_server_that_never_answers_is_given_up():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/v1"
        begun = time.monotonic()
        with pytest.raises(EndpointError, match=r"after 1 try of up to 0\.2 s: timed out"):
            Endpoint(url, timeout_s=0.2, retries=0).ask("", "a dog")
        assert time.monotonic() - begun < 10


def test_nobody_there_is_one_line():
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(EndpointError, match=r"cannot be reached after 1 try.*refused"):
        Endpoint(f"http://127.0.0.1:{port}", retries=0).ask("", "a dog")


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://a/v1", "http://", "file:///etc/passwd"])
def test_only_web_addresses_are_endpoints(url):
    with pytest.raises(ConfigError, match="is not the address of an endpoint"):
        Endpoint(url)
