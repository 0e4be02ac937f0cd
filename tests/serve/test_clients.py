"""All operations as the official Python client sends them."""

import io
import json

import numpy as np
import pytest
from PIL import Image
from standardwebhooks.webhooks import Webhook

openai = pytest.importorskip("openai")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
PROMPT = "a penguin walks across the snow"
OWN = {"steps": 2, "frames": 5}


@pytest.fixture(scope="module")
def client(running):
    with openai.OpenAI(base_url=f"{running.url}/v1", api_key="any", max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def video(client):
    return client.videos.create_and_poll(model="sora-2", prompt=PROMPT, size="96x96", extra_body=OWN)


def test_create_and_poll_gives_a_completed_video(video):
    assert (video.status, video.progress, video.model, video.prompt) == ("completed", 100, "sora-2", PROMPT)
    assert (video.size, video.seconds) == ("96x96", "0.62")
    assert video.expires_at > video.completed_at >= video.created_at


def test_the_default_size_and_length_of_the_client_are_mapped_and_reported(client):
    video = client.videos.create(prompt=PROMPT, seconds="4", size="720x1280")
    assert (video.size, video.seconds) == ("96x160", "4")
    assert video.kinema["adjusted"] == ["size 720x1280 -> 96x160"]
    client.videos.delete(video.id)


def test_contents(client, video):
    content = client.videos.download_content(video.id)
    assert content.read()[4:8] == b"ftyp"
    thumbnail = Image.open(io.BytesIO(client.videos.download_content(video.id, variant="thumbnail").read()))
    assert (thumbnail.format, thumbnail.size) == ("WEBP", (96, 96))
    sheet = Image.open(io.BytesIO(client.videos.download_content(video.id, variant="spritesheet").read()))
    assert (sheet.format, sheet.size) == ("JPEG", (3 * 96, 2 * 96))


def test_a_picture_begins_a_video(client, running):
    file = io.BytesIO()
    Image.fromarray(np.full((96, 96, 3), 200, np.uint8)).save(file, "PNG")
    picture = ("first.png", file.getvalue(), "image/png")
    made = client.videos.create_and_poll(prompt=PROMPT, size="96x96", input_reference=picture, extra_body=OWN)
    assert (made.status, made.kinema["task"]) == ("completed", "image")


def test_edits_extensions_and_remixes_of_a_video(client, running, video):
    edited = client.videos.edit(
        prompt="a fox walks across the snow",
        video=client.videos.download_content(video.id).read(),
        extra_body={"steps": 2},
    )
    extended = client.post(
        "/videos/extensions",
        body={"prompt": PROMPT, "video": {"id": video.id}, "seconds": "1", "steps": 2},
        cast_to=type(video),
    )
    remixed = client.videos.remix(video.id, prompt="a fox hops on grass")
    assert remixed.remixed_from_video_id == video.id
    for made, seconds in ((edited, "0.62"), (extended, "1.62"), (remixed, "0.62")):
        ended = running.ended(made.id)
        assert (ended["status"], ended["seconds"]) == ("completed", seconds), ended


def test_characters(client, running, video):
    clip = client.videos.download_content(video.id).read()
    character = client.videos.create_character(name="Pip", video=("pip.mp4", clip, "video/mp4"))
    assert client.videos.get_character(character.id).name == "Pip"
    made = running.create(characters=[{"id": character.id}])
    assert running.ended(made["id"])["kinema"]["task"] == "image"


def test_lists_page_through_every_video(client, video):
    ids = [item.id for item in client.videos.list(limit=2)]
    assert len(ids) == len(set(ids)) >= 3
    assert [item.id for item in client.videos.list(limit=2, order="asc")] == ids[::-1]


def test_a_deleted_video_is_gone(client):
    made = client.videos.create(prompt=PROMPT, size="96x96", extra_body=OWN)
    deleted = client.videos.delete(made.id)
    assert (deleted.id, deleted.object, deleted.deleted) == (made.id, "video.deleted", True)
    with pytest.raises(openai.NotFoundError):
        client.videos.retrieve(made.id)
    with pytest.raises(openai.NotFoundError):
        client.videos.download_content(made.id)


def test_errors_name_the_field(client):
    for field, code, sent in (
        ("prompt", "missing_required_parameter", {"prompt": ""}),
        ("seed", "invalid_value", {"prompt": PROMPT, "extra_body": {"seed": "x"}}),
        ("sed", "unknown_parameter", {"prompt": PROMPT, "extra_body": {"sed": "1"}}),
        ("model", "invalid_value", {"prompt": PROMPT, "model": "sora-9"}),
        ("size", "invalid_value", {"prompt": PROMPT, "size": "big"}),
        ("seconds", "invalid_value", {"prompt": PROMPT, "seconds": "long"}),
        ("sampler", "invalid_value", {"prompt": PROMPT, "extra_body": {"sampler": "eular"}}),
    ):
        with pytest.raises(openai.BadRequestError) as raised:
            client.videos.create(**sent)
        assert (raised.value.param, raised.value.code) == (field, code), raised.value


def test_the_models_are_listed(client):
    assert [model.id for model in client.models.list()] == ["kinema-nano", "sora-2", "sora-2-pro"]
    assert client.models.retrieve("kinema-nano").owned_by == "kinema"


def test_batches(client, running):
    lines = [
        {
            "custom_id": "a",
            "method": "POST",
            "url": "/v1/videos",
            "body": {"prompt": PROMPT, "size": "96x96", **OWN},
        },
        {"custom_id": "b", "method": "POST", "url": "/v1/videos", "body": {"prompt": PROMPT, "seed": "x"}},
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines).encode()
    file = client.files.create(file=("lines.jsonl", text), purpose="batch")
    made = client.batches.create(
        input_file_id=file.id, endpoint="/v1/videos", completion_window="24h", metadata={"run": "one"}
    )
    assert (made.status, made.request_counts.total, made.metadata) == ("in_progress", 2, {"run": "one"})
    done = running.wait_for(lambda: (b := client.batches.retrieve(made.id)).status == "completed" and b)
    assert (done.request_counts.completed, done.request_counts.failed) == (1, 1)
    (good,) = [json.loads(line) for line in client.files.content(done.output_file_id).text.splitlines()]
    (bad,) = [json.loads(line) for line in client.files.content(done.error_file_id).text.splitlines()]
    assert (good["custom_id"], good["response"]["body"]["status"]) == ("a", "completed")
    assert (bad["custom_id"], bad["error"]["code"]) == ("b", "invalid_value")


def test_events_are_read_by_the_client(client):
    secret = "whsec_" + "c2VjcmV0LXNlY3JldC1zZWNyZXQ="
    from datetime import UTC, datetime

    event = {"id": "evt_1", "object": "event", "created_at": 1, "type": "video.completed"}
    body = json.dumps({**event, "data": {"id": "video_1"}})
    now = datetime.now(UTC)
    headers = {
        "webhook-id": "evt_1",
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": Webhook(secret).sign("evt_1", now, body),
    }
    event = client.webhooks.unwrap(body, headers, secret=secret)
    assert (event.type, event.data.id) == ("video.completed", "video_1")
