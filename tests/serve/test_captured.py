"""The official clients' own bytes, so that these tests outlive the clients.

`captured.jsonl` holds what openai 3.57.0 (Python) and 6.49.0 (node) sent, one request a line, to a video and
a character of the ids below.
"""

import base64
import json
from pathlib import Path

import pytest

CAPTURED = [json.loads(line) for line in (Path(__file__).parent / "captured.jsonl").read_text().splitlines()]
VIDEO, CHARACTER = "video_0123456789abcdef0123456789abcdef", "char_0123456789abcdef01234567"


@pytest.fixture(scope="module")
def ids(running):
    """A completed video, and a character."""
    video = running.ended(running.create()["id"])["id"]
    clip = running.client.get(f"/v1/videos/{video}/content").content
    form = {"data": {"name": "Pip"}, "files": {"video": ("pip.mp4", clip, "video/mp4")}}
    return video, running.client.post("/v1/videos/characters", **form).json()["id"]


@pytest.mark.parametrize(
    "sent", CAPTURED, ids=lambda sent: f"{sent['agent'].split()[0]} {sent['method']} {sent['path']}"
)
def test_a_captured_request_is_answered(running, ids, sent):
    video, character = ids
    if sent["method"] == "DELETE":
        video = running.create()["id"]
    body = base64.b64decode(sent["body"]).replace(VIDEO.encode(), video.encode())
    path = sent["path"].replace(VIDEO, video).replace(CHARACTER, character)
    headers = {"content-type": sent["content_type"]} if sent["content_type"] else {}
    reply = running.client.request(sent["method"], path, content=body, headers=headers)
    assert reply.status_code == 200, reply.text
    if "/content" not in path:
        assert reply.json()["object"] in ("video", "list", "video.deleted", "character")


def test_every_operation_was_captured_from_both_clients():
    for client in ("Python", "JS"):
        mine = {(sent["method"], sent["path"].split("?")[0]) for sent in CAPTURED if client in sent["agent"]}
        for operation in (
            ("POST", "/v1/videos"),
            ("POST", "/v1/videos/edits"),
            ("POST", "/v1/videos/extensions"),
            ("POST", f"/v1/videos/{VIDEO}/remix"),
            ("POST", "/v1/videos/characters"),
            ("GET", "/v1/videos"),
            ("GET", f"/v1/videos/{VIDEO}/content"),
            ("DELETE", f"/v1/videos/{VIDEO}"),
        ):
            assert operation in mine
