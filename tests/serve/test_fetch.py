"""Requests to strangers' addresses never reach the network behind the server; moderation by an endpoint."""

import json
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from kinema.errors import ServeError
from kinema.serve import fetch
from kinema.serve.fetch import FetchError, is_public, resolve, send
from kinema.serve.policy import make_policy


class Answers(BaseHTTPRequestHandler):
    """Redirects, floods, or flags the word "blood"."""

    def do_GET(self):
        self.send_response(302 if self.path == "/redirect" else 200)
        self.send_header("location", "http://169.254.169.254/")
        self.end_headers()
        if self.path == "/flood":
            self.wfile.write(b"x" * 100_000)

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        is_flagged = any("blood" in text for text in body["input"])
        results = [{"flagged": is_flagged, "categories": {"violence": is_flagged, "hate": False}}]
        answer = json.dumps({"results": results}).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def address():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    "text",
    [
        *("127.0.0.1", "10.1.2.3", "192.168.0.1", "172.16.0.1", "169.254.169.254", "100.64.0.1", "0.0.0.0"),
        *("224.0.0.1", "255.255.255.255", "::1", "::", "fe80::1%eth0", "fc00::1", "ff02::1"),
        *("::ffff:10.0.0.1", "::ffff:127.0.0.1", "64:ff9b::a00:1", "2002:7f00:1::"),
    ],
)
def test_an_address_that_is_not_public_is_refused(text):
    assert not is_public(text)


@pytest.mark.parametrize("text", ["1.1.1.1", "8.8.8.8", "2606:4700:4700::1111", "::ffff:1.1.1.1"])
def test_a_public_address_is_accepted(text):
    assert is_public(text)


@pytest.mark.parametrize(
    "url",
    [
        *(
            "http://example.org/a",
            "https://127.0.0.1/",
            "https://0x7f.1/",
            "https://[::1]/",
            "https://localhost/",
        ),
        *(
            "https://[::ffff:10.0.0.1]/",
            "https://2130706433/",
            "ftp://example.org/",
            "file:///etc/passwd",
            "https://",
        ),
        *("https://user@example.org/", "https://example.org:99999/", "https://[bad/"),
    ],
)
def test_a_refused_address_opens_no_connection(url, monkeypatch):
    def connect(*_):
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket, "create_connection", connect)
    with pytest.raises(FetchError):
        send("GET", url)


def test_a_name_is_resolved_once_and_the_checked_address_is_used(monkeypatch):
    asked, connected = [], []

    def getaddrinfo(host, port, **_):
        asked.append(host)
        address = "93.184.216.34" if len(asked) == 1 else "127.0.0.1"  # the second answer is the attack
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    def connect(address, *_):
        connected.append(address)
        raise ConnectionRefusedError

    monkeypatch.setattr(fetch.socket, "getaddrinfo", getaddrinfo)
    monkeypatch.setattr(fetch.socket, "create_connection", connect)
    with pytest.raises(FetchError, match=r"no answer from rebind.example"):
        send("GET", "https://rebind.example/x")
    assert (asked, connected) == (["rebind.example"], [("93.184.216.34", 443)])


def test_a_name_with_one_private_address_is_refused(monkeypatch):
    both = [(socket.AF_INET, 1, 6, "", (address, 443)) for address in ("93.184.216.34", "10.0.0.1")]
    monkeypatch.setattr(fetch.socket, "getaddrinfo", lambda *_, **__: both)
    with pytest.raises(FetchError, match="not public"):
        resolve("half.example", 443)


def test_redirects_are_not_followed_and_answers_are_limited(address):
    status, headers, _ = send("GET", f"{address}/redirect", private_hosts=["127.0.0.1"])
    assert (status, headers["location"]) == (302, "http://169.254.169.254/")
    with pytest.raises(FetchError, match="more than 1000 bytes"):
        send("GET", f"{address}/flood", private_hosts=["127.0.0.1"], max_bytes=1000)
    with pytest.raises(FetchError, match="not allowed"):
        send("GET", "https://example.org/", allowed_hosts=["other.example"])


def test_a_moderations_endpoint_decides_and_its_silence_refuses(address):
    policy = make_policy(f"{address}/v1/moderations")
    assert policy.check(["a penguin walks"]) is None
    assert policy.check(["a penguin", "blood"]).rule == "endpoint:violence"
    assert make_policy("http://127.0.0.1:1/v1/moderations").check(["x"]).rule == "endpoint:unavailable"


def test_a_word_list_finds_whole_words_in_every_spelling(tmp_path):
    (tmp_path / "words.txt").write_text("Blood\n雪\nred car # both words\n", encoding="utf-8")
    policy = make_policy(f"words:{tmp_path / 'words.txt'}")
    for text in ("BLOOD", "ｂｌｏｏｄ", "blo\u200bod", "下雪了", "a red  car"):
        assert policy.check([text]) is not None, text
    for text in ("bloodhound", "a red bus and a car"):
        assert policy.check([text]) is None, text
    assert make_policy("off").check(["blood"]) is None
    for wrong in ("strict", "words:/no/such/file"):
        with pytest.raises(ServeError):
            make_policy(wrong)
