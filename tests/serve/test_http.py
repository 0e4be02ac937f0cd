"""The HTTP side: bodies, ranges, events, checks of callers, and what hostile requests get."""

import json
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import httpx2
import pytest
from standardwebhooks.webhooks import Webhook
from tests.serve.running import SMALL, Running

from kinema.serve.api.bodies import unbracket
from kinema.serve.api.errors import ApiError

PROMPT = "a penguin walks across the snow"


@pytest.fixture(scope="module")
def client(running):
    return running.client


@pytest.fixture(scope="module")
def video(running):
    return running.ended(running.create()["id"])


@pytest.fixture(scope="module")
def url(video):
    return f"/v1/videos/{video['id']}/content"


def test_brackets_become_nested_values():
    pairs = [
        ("a", "1"),
        ("b[c]", "2"),
        ("d[]", "3"),
        ("d[]", "4"),
        ("e[][x]", "5"),
        ("e[][y]", "6"),
        ("e[][x]", "7"),
    ]
    expected = {"a": "1", "b": {"c": "2"}, "d": ["3", "4"], "e": [{"x": "5", "y": "6"}, {"x": "7"}]}
    assert unbracket(pairs) == expected
    assert unbracket([("s[0][at]", "0"), ("s[0][clip][id]", "v"), ("s[1][at]", "1")]) == {
        "s": [{"at": "0", "clip": {"id": "v"}}, {"at": "1"}]
    }
    for name in ("a[", "[a]", "a]b", "a[b]c", ""):
        with pytest.raises(ApiError):
            unbracket([(name, "1")])
    with pytest.raises(ApiError):
        unbracket([("a", "1"), ("a[b]", "2")])


@pytest.mark.parametrize("form", ["json", "data", "files"])
def test_one_operation_takes_three_kinds_of_body(client, form):
    fields = {"prompt": PROMPT, "seed": "7", "size": "96x96", "num_inference_steps": "2", "num_frames": "5"}
    body = {name: (None, value) for name, value in fields.items()} if form == "files" else fields
    reply = client.post("/v1/videos", **{form: body})
    assert reply.status_code == 200, reply.text
    made = reply.json()
    assert [made["kinema"][name] for name in ("seed", "steps", "frames")] == [7, 2, 5]
    assert int(reply.headers["openai-poll-after-ms"]) > 0
    client.delete(f"/v1/videos/{made['id']}")


@pytest.mark.parametrize(
    "body",
    [
        b"[1]",
        b"null",
        b"\xff\xfe",
        b"{",
        b"[" * 100_000,
        b'{"prompt": "x", "seed": 1e999}',
        b'{"prompt": "a\\u0000b"}',
        b'{"prompt": "a\\ud800b"}',
        b'{"prompt": ["x"]}',
        b'{"prompt": "x", "storyboard": [{"at": -1}]}',
        b'{"prompt": "x", "extra_params": "{"}',
        b'{"prompt": "x", "width": 0, "height": 64}',
        b'{"prompt": "x", "seconds": "nan"}',
        b'{"prompt": "x", "loop": true, "storyboard": []}',
        b'{"prompt": "x", "input_reference": {"image_url": "file:///etc/passwd"}}',
        b'{"prompt": "x", "input_reference": {"image_url": "http://169.254.169.254/latest"}}',
        b'{"prompt": "x", "input_reference": {"image_url": "data:image/png;base64,AAAA"}}',
        json.dumps({"prompt": "x" * 5000}).encode(),
    ],
)
def test_hostile_json_is_refused_with_a_reason(client, body):
    reply = client.post("/v1/videos", content=body, headers={"content-type": "application/json"})
    assert reply.status_code == 400, reply.text
    assert set(reply.json()["error"]) == {"message", "type", "param", "code"}


@pytest.mark.parametrize(
    "content", [b"#EXTM3U\nfile:///etc/passwd", b"GIF89a", b"<svg/>", b"", b"\x89PNG\r\n\x1a\nbroken"]
)
def test_uploads_of_other_formats_are_refused(client, content):
    reply = client.post(
        "/v1/videos", data={"prompt": "x"}, files={"input_reference": ("a.png", content, "image/png")}
    )
    assert reply.status_code == 400, reply.text
    assert "/" not in reply.json()["error"]["message"].replace("MP4", "")


def test_a_decompression_bomb_is_refused(client):
    import struct
    import zlib

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    size = struct.pack(">IIBBBBB", 40_000, 40_000, 8, 2, 0, 0, 0)
    bomb = (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", size)
        + chunk(b"IDAT", zlib.compress(b"\0" * 1000))
        + chunk(b"IEND", b"")
    )
    reply = client.post(
        "/v1/videos", data={"prompt": "x"}, files={"input_reference": ("a.png", bomb, "image/png")}
    )
    assert reply.status_code == 400, reply.text


def test_a_body_is_limited_while_it_streams(tmp_path):
    server = Running(tmp_path / "small", "--no-worker", "--max-upload", "1")
    try:
        chunks = (b"x" * 65_536 for _ in range(64))  # sent in chunks, without a declared length
        reply = server.client.post("/v1/videos", content=chunks, headers={"content-type": "application/json"})
        assert reply.status_code == 413, reply.text
        declared = server.client.post("/v1/videos", content=b"x" * (2 << 20))
        assert declared.json()["error"]["code"] == "request_too_large"
    except httpx2.WriteError:
        pass  # the server closed the connection before all was sent
    finally:
        assert server.stop() == 0


def test_ranges(client, url):
    whole = client.get(url)
    size = len(whole.content)
    assert (whole.status_code, whole.headers["content-type"]) == (200, "video/mp4")
    for value, part in (
        ("bytes=0-99", slice(0, 100)),
        ("bytes=100-", slice(100, None)),
        ("bytes=-50", slice(size - 50, None)),
    ):
        reply = client.get(url, headers={"range": value})
        assert (reply.status_code, reply.content) == (206, whole.content[part])
    for ignored in ("items=0-5", "bytes=5-2", "bytes=x", "bytes"):
        assert client.get(url, headers={"range": ignored}).status_code == 200
    assert client.get(url, headers={"range": f"bytes={size}-"}).status_code == 416
    other = {"range": "bytes=0-9", "if-range": '"other"'}
    assert client.get(url, headers=other).status_code == 200


def test_head_and_etags(client, url):
    head = client.head(url)
    assert (head.status_code, head.content) == (200, b"")
    assert int(head.headers["content-length"]) == len(client.get(url).content)
    etag = head.headers["etag"]
    assert client.get(url, headers={"range": "bytes=0-9", "if-range": etag}).status_code == 206


def test_events_end_with_the_completed_video(running, client):
    made = running.create(seed=3)
    with client.stream("GET", f"/v1/videos/{made['id']}/events") as reply:
        assert reply.headers["content-type"].startswith("text/event-stream")
        seen = [json.loads(line[6:]) for line in reply.iter_lines() if line.startswith("data: ")]
    assert seen[0]["id"] == made["id"]
    assert seen[-1]["status"] == "completed"


def test_sync_replies_with_the_file(client):
    reply = client.post("/v1/videos/sync", json={"prompt": PROMPT, **SMALL})
    assert reply.content[4:8] == b"ftyp"


def test_own_tasks(running, video):
    own = {"steps": 2}
    tasks = {
        "loop": {"loop": True, "frames": 8, "size": "96x96"},
        "connect": {
            "connect": {"first": {"id": video["id"]}, "second": {"id": video["id"]}},
            "seconds": "0.5",
        },
        "storyboard": {
            "storyboard": [{"at": 0, "prompt": PROMPT}, {"at": 1, "prompt": "a fox hops on grass"}],
            "frames": 13,
            "size": "96x96",
            "prompt": "",
        },
    }
    tasks["connect"]["frames"] = None
    for task, fields in tasks.items():
        sent = {"prompt": PROMPT, **own, **fields}
        reply = running.client.post("/v1/videos", json={name: v for name, v in sent.items() if v is not None})
        assert reply.status_code == 200, reply.text
        assert reply.json()["kinema"]["task"] == task
        assert running.ended(reply.json()["id"])["status"] == "completed"
    region = {"prompt": PROMPT, "video": {"id": video["id"]}, "region": "0,0,32,32", **own}
    reply = running.client.post("/v1/videos/edits", json=region)
    assert running.ended(reply.json()["id"])["status"] == "completed", reply.text
    both = {"video": {"id": video["id"]}, "seconds": "1", "direction": "both", **own}
    reply = running.client.post("/v1/videos/extensions", json=both)
    assert reply.json()["prompt"] == video["prompt"]
    assert running.ended(reply.json()["id"])["seconds"] == "2.62"


def test_an_idempotency_key_makes_one_video(client):
    headers = {"idempotency-key": "once"}
    body = {"prompt": PROMPT, **SMALL}
    first, second = (client.post("/v1/videos", json=body, headers=headers).json() for _ in range(2))
    assert first["id"] == second["id"]
    other = client.post("/v1/videos", json={**body, "seed": 1}, headers=headers)
    assert (other.status_code, other.headers["x-should-retry"]) == (409, "false")
    assert other.json()["error"]["code"] == "idempotency_key_reused"


def test_foreign_hosts_and_pages_are_refused(client):
    assert (
        client.get("/v1/videos", headers={"host": "evil.example"}).json()["error"]["code"] == "invalid_host"
    )
    reply = client.post("/v1/videos", json={"prompt": "x"}, headers={"origin": "https://evil.example"})
    assert reply.json()["error"]["code"] == "invalid_origin"


def test_every_reply_has_an_id_and_security_headers(client):
    reply = client.get("/v1/nothing")
    assert (reply.status_code, reply.json()["error"]["code"]) == (404, "not_found")
    assert reply.headers["x-request-id"].startswith("req_")
    assert "default-src 'self'" in reply.headers["content-security-policy"]
    assert client.get("/healthz", headers={"x-request-id": "mine-1"}).headers["x-request-id"] == "mine-1"


def test_figures_hold_no_ids_or_prompts(client, video):
    text = client.get("/metrics").text
    assert "kinema_workers 1.0" in text
    assert video["id"] not in text
    assert client.get("/readyz").json() == {"status": "ready", "reasons": []}


def test_prompts_are_not_logged(running, video):
    assert video["prompt"] not in running.log.read_text()


def test_the_openapi_document_has_no_unresolved_reference(client):
    document = client.get("/openapi.json").json()
    text = json.dumps(document)
    import re

    for name in set(re.findall(r'"#/components/schemas/([^"]+)"', text)):
        assert name in document["components"]["schemas"], name
    assert "#/$defs" not in text
    assert len(document["paths"]) >= 20


def test_how_a_prompt_is_read(client):
    reply = client.post("/v1/prompts/read", json={"prompt": "a zeppelin walks"}).json()
    assert "zeppelin" in reply["text"]


def test_keys_scopes_and_owners(tmp_path):
    data = tmp_path / "keyed"
    made = [
        make_key(data, name, *options)
        for name, options in (("ann", ()), ("bob", ()), ("eve", ("--scopes", "videos.read")))
    ]
    ann, bob, eve = ({"authorization": f"Bearer {key}"} for key in made)
    server = Running(data, "--no-worker", "--host", "0.0.0.0")
    try:
        client = server.client
        body = {"prompt": PROMPT, **SMALL}
        assert client.post("/v1/videos", json=body).json()["error"]["code"] == "invalid_api_key"
        wrong = {"authorization": "Bearer kin_wrong"}
        assert client.get("/v1/videos", headers=wrong).status_code == 401
        id = client.post("/v1/videos", json=body, headers=ann).json()["id"]
        assert client.get(f"/v1/videos/{id}", headers=bob).status_code == 404
        assert client.delete(f"/v1/videos/{id}", headers=bob).status_code == 404
        assert client.get("/v1/videos", headers=bob).json()["data"] == []
        assert client.get(f"/v1/videos/{id}", headers=ann).status_code == 200
        assert client.post("/v1/videos", json=body, headers=eve).status_code == 403
        assert (
            client.post("/v1/session", json={"key": made[0]}, headers={"host": "127.0.0.1"}).status_code
            == 200
        )
        assert client.get(f"/v1/videos/{id}").status_code == 200  # by the cookie
    finally:
        assert server.stop() == 0


def make_key(data: Path, name: str, *options: str) -> str:
    command = [sys.executable, "-m", "kinema", "keys", "create", name, "--data", str(data), *options]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1]


def test_a_public_address_needs_a_key(tmp_path):
    command = [
        sys.executable,
        "-m",
        "kinema",
        "serve",
        "--data",
        str(tmp_path),
        "--host",
        "0.0.0.0",
        "--port",
        "0",
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert "create one first" in done.stderr.splitlines()[-1]


def test_two_servers_on_one_folder_and_a_port_in_use_are_refused(running):
    def start(data, port):
        command = [
            sys.executable,
            "-m",
            "kinema",
            "serve",
            "--data",
            str(data),
            "--port",
            str(port),
            "--no-worker",
        ]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 2
        return done.stderr.splitlines()[-1]

    assert "another server runs on" in start(running.data, 0)
    port = running.url.split(":")[-1]
    assert f"127.0.0.1:{port} is in use" in start(running.data.parent / "other", port)


def test_a_word_list_blocks_prompts(tmp_path):
    words = tmp_path / "words.txt"
    words.write_text("penguin  # not here\n")
    server = Running(tmp_path / "data", "--no-worker", "--policy", f"words:{words}")
    try:
        reply = server.client.post("/v1/videos", json={"prompt": "a ＰＥＮＧＵＩＮ walks", **SMALL})
        assert reply.json()["error"]["code"] == "moderation_blocked"
        assert server.client.post("/v1/videos", json={"prompt": "a fox", **SMALL}).status_code == 200
        assert server.client.get("/v1/policy").json()["moderation"] == "words"
    finally:
        server.stop()


class Receiver(BaseHTTPRequestHandler):
    """Fails the first delivery and keeps the others."""

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.received.append((dict(self.headers), body))
        self.send_response(500 if len(self.server.received) == 1 else 200)
        self.end_headers()

    def log_message(self, *_):
        pass


def test_webhooks_are_signed_and_tried_again(tmp_path):
    receiver = HTTPServer(("127.0.0.1", 0), Receiver)
    receiver.received = []
    threading.Thread(target=receiver.serve_forever, daemon=True).start()
    server = Running(tmp_path / "data", "--webhook-host", "127.0.0.1", "--no-preview")
    try:
        for refused in ("http://example.org/x", "https://127.1/x", "ftp://x", "https://169.254.169.254/"):
            reply = server.client.post("/v1/webhooks", json={"url": refused})
            assert reply.status_code == 400, refused
        port = receiver.server_address[1]
        hook = server.client.post("/v1/webhooks", json={"url": f"http://127.0.0.1:{port}/hook"}).json()
        made = server.create()
        server.wait_for(lambda: len(receiver.received) >= 2)
        for headers, body in receiver.received:
            event = Webhook(hook["secret"]).verify(body, {name.lower(): v for name, v in headers.items()})
            assert (event["type"], event["data"]) == ("video.completed", {"id": made["id"]})
        ids = {headers["webhook-id"] for headers, _ in receiver.received}
        assert len(ids) == 1
        assert server.client.get("/v1/webhooks").json()["data"][0]["id"] == hook["id"]
    finally:
        server.stop()
        receiver.shutdown()
        receiver.server_close()


def test_the_http_side_never_imports_torch(tmp_path):
    code = f"""
import asyncio, sys
from pathlib import Path
import httpx2
from kinema.serve.api.app import make_app, make_server
from kinema.serve.settings import ServerSettings, Storage
server = make_server(ServerSettings(Storage(Path({str(tmp_path)!r})), {{"nano": "shipped"}}))
app = make_app(server)

async def ask():
    transport = httpx2.ASGITransport(app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
        for body in ({{"prompt": "a fox", "seconds": "2"}}, {{"prompt": "a fox", "steps": 0}}):
            print((await client.post("/v1/videos", json=body)).status_code)
        print((await client.post("/v1/videos", json={{"prompt": "a fox", "sampler": "no"}})).status_code)
        print((await client.get("/openapi.json")).status_code)

asyncio.run(ask())
server.database.close()
assert "torch" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["200", "400", "400", "200"]
