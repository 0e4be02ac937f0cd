"""The studio in Chromium: every function of the page, against a real server."""

import argparse
import json
import os
import re
import shlex
import shutil
from urllib.parse import urlsplit

import pytest

from kinema.cli import edit

DEMAND = "KINEMA_NEED_CHROMIUM"
"""With this environment variable, tests fail without Chromium instead of being skipped."""
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(
    CHROMIUM is None and not os.environ.get(DEMAND),
    reason=f"Chromium is not installed (apt-get install chromium); {DEMAND}=1 makes this an error",
)
CAR = "a red car drives on a road"
UNNAMED = """
[...document.querySelectorAll("button, a, input, select, textarea, [role=slider]")]
  .filter((e) => !(e.ariaLabel || e.textContent?.trim() || e.labels?.length || e.hidden))
  .map((e) => e.outerHTML)
"""
"""Controls that a screen reader has no name for."""


@pytest.fixture(scope="module")
def browser():
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        )
        yield browser
        browser.close()


@pytest.fixture
def page(browser, running):
    """A new visitor's page. Afterwards: no error on the console, and no request to another machine."""
    context = browser.new_context(base_url=running.url, viewport={"width": 1280, "height": 900})
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    context.set_default_timeout(30_000)
    page = context.new_page()
    problems, hosts = [], set()
    page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("request", lambda request: hosts.add(urlsplit(request.url).hostname))
    page.expected = set()
    yield page
    context.close()
    assert [text for text in problems if not any(word in text for word in page.expected)] == []
    assert hosts - {None} == {"127.0.0.1"}


@pytest.fixture(scope="module")
def clips(running):
    """Two finished videos."""
    ids = [running.create(seed=seed)["id"] for seed in (31, 32)]
    return [running.ended(id) for id in ids]


def fill_small(page, steps=2):
    """Ask for the smallest video that the model makes."""
    page.get_by_label("Size", exact=True).select_option("custom")
    page.get_by_label("Width x height").fill("96x96")
    page.locator(".composer summary", has_text="Advanced").click()
    page.get_by_label("Frames").fill("5")
    page.get_by_label("Steps").fill(str(steps))


def sent(page, press):
    """The body of the request that `press` sends, and the video that answers it."""
    with page.expect_response(
        lambda reply: reply.request.method == "POST" and "/v1/videos" in reply.url
    ) as got:
        press()
    assert got.value.ok, got.value.text()
    return got.value.request.post_data_json, got.value.json()


def generate(page):
    return sent(page, page.get_by_role("button", name="Generate").click)


def card(page, video, status=None):
    state = f'[data-status="{status}"]' if status else ""
    return page.locator(f'article[data-id="{video["id"]}"]{state}')


def open_tool(page, clip, tool):
    """Choose a tool for a clip, with two steps."""
    page.goto(f"/#/edit/{clip['id']}")
    page.locator(".inspector .segments").first.get_by_text(tool, exact=True).click()
    page.locator(".tool summary", has_text="Advanced").click()
    page.get_by_label("Steps").fill("2")


def finished(page, running, video):
    """The video at its end, when the page shows it."""
    ended = running.ended(video["id"])
    assert ended["status"] == "completed", ended
    card(page, video, "completed").wait_for()
    return ended


def test_takes_are_generated_and_shown_side_by_side(page, running):
    page.goto("/")
    page.get_by_label("Prompt", exact=True).fill("a penguin walks across the snow")
    fill_small(page)
    page.get_by_label("Seed", exact=True).fill("7")
    page.locator(".composer").get_by_text("2", exact=True).click()
    body, video = generate(page)
    assert (body["size"], body["frames"], body["steps"], body["seed"]) == ("96x96", 5, 2, 7)
    finished(page, running, video)
    group = page.get_by_role("group", name="2 takes of a penguin")
    group.locator('article[data-status="completed"]').nth(1).wait_for()
    assert group.get_by_text("Seed 8").is_visible()
    group.get_by_role("button", name="Play together").click()
    for clip in group.locator("video").all():
        running.wait_for(
            lambda clip=clip: clip.evaluate("clip => clip.readyState >= 2 && clip.currentTime > 0")
        )


def test_a_job_is_watched_survives_a_reload_and_is_cancelled(page, running):
    page.goto("/")
    page.get_by_label("Prompt", exact=True).fill("a rocket rises over the desert")
    fill_small(page, steps=900)
    _, video = generate(page)
    shown = card(page, video, "in_progress")
    shown.get_by_role("img", name="Preview").wait_for()
    page.reload()
    shown.get_by_text(re.compile(r"Step \d+ of 900")).wait_for()
    assert page.get_by_label("Prompt", exact=True).input_value() == "a rocket rises over the desert"
    assert shown.get_by_role("progressbar").get_attribute("aria-valuenow") is not None
    shown.get_by_role("button", name="Cancel").click()
    card(page, video, "failed").get_by_text("Cancelled").wait_for()
    assert running.ended(video["id"])["error"]["code"] == "cancelled"

    card(page, video).get_by_role("button", name="Delete").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    card(page, video).wait_for(state="detached")
    assert running.client.get(f"/v1/videos/{video['id']}").status_code == 404


@pytest.mark.parametrize(("direction", "frames"), [("Before", 9), ("After", 9), ("Both", 13)])
def test_a_clip_is_extended_either_way(page, running, clips, direction, frames):
    open_tool(page, clips[0], "Extend")
    page.get_by_text(direction, exact=True).click()
    page.get_by_label(re.compile("^Seconds to add")).fill("0.5")
    _, video = generate(page)
    made = finished(page, running, video)["kinema"]
    assert (made["frames"], made["width"], made["source"]) == (frames, 96, clips[0]["id"])


def test_two_clips_are_connected(page, running, clips):
    open_tool(page, clips[0], "Connect")
    assert page.get_by_role("button", name="Generate").is_disabled()
    page.get_by_role("button", name="Choose the second clip").click()
    page.get_by_role("dialog").locator(f'[data-id="{clips[1]["id"]}"]').click()
    page.get_by_label("Length of the transition in seconds").fill("0.5")
    body, video = generate(page)
    assert body["connect"] == {"first": {"id": clips[0]["id"]}, "second": {"id": clips[1]["id"]}}
    assert finished(page, running, video)["kinema"]["frames"] == 5 + 4 + 5


def test_a_clip_becomes_a_loop(page, running, clips):
    open_tool(page, clips[0], "Loop")
    page.get_by_label("Length of the loop in seconds").fill("1")
    _, video = generate(page)
    made = finished(page, running, video)["kinema"]
    assert (made["task"], made["frames"]) == ("loop", 8)


def test_a_drawn_rectangle_is_edited(page, running, clips):
    open_tool(page, clips[0], "Edit")
    page.get_by_text("Rectangle", exact=True).click()
    box = page.locator("canvas.drawing").bounding_box()
    page.mouse.move(box["x"] + box["width"] / 4, box["y"] + box["height"] / 4)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2, steps=4)
    page.mouse.up()
    page.get_by_label("What the edited clip shows").fill("a blue car drives on a road")
    body, video = generate(page)
    assert [int(number) for number in body["region"].split(",")] == pytest.approx([24, 24, 24, 24], abs=1)
    assert finished(page, running, video)["kinema"]["task"] == "edit"


def test_a_painted_area_is_edited(page, running, clips):
    open_tool(page, clips[0], "Edit")
    page.get_by_text("Brush", exact=True).click()
    page.locator("canvas.drawing").click(position={"x": 60, "y": 60})
    page.get_by_label("What the edited clip shows").fill("a blue car drives on a road")
    body, video = generate(page)
    assert body["mask"]["file_id"].startswith("file")
    finished(page, running, video)


def test_a_storyboard_of_timed_prompts_and_a_clip(page, running, clips):
    page.goto("/#/storyboard")
    page.get_by_label("What the video shows").fill(CAR)
    page.get_by_role("button", name="Prompt", exact=True).click()
    page.get_by_label("What it shows from then on").fill("a blue car drives on a road")
    page.get_by_role("button", name="Clip", exact=True).click()
    page.get_by_role("dialog").locator(f'[data-id="{clips[0]["id"]}"]').click()
    page.get_by_label("Begins at second").fill("0")
    page.get_by_label("Length in seconds").fill("1.625")
    page.locator("summary", has_text="Advanced").click()
    page.get_by_label("Steps").fill("2")
    body, video = generate(page)
    assert [{**shot, "clip": shot.get("clip")} for shot in body["storyboard"]] == [
        {"at": 0, "prompt": CAR, "clip": None},
        {"at": 0, "clip": {"id": clips[0]["id"]}},
        {"at": 1, "prompt": "a blue car drives on a road", "clip": None},
    ]
    page.reload()
    assert finished(page, running, video)["kinema"]["frames"] == 13
    assert page.get_by_label("Length in seconds").input_value() == "1.625"


def test_the_page_tells_how_words_are_read(page):
    page.goto("/")
    page.get_by_label("Prompt", exact=True).fill("an automobile drives xyzzy")
    reading = page.get_by_label("How the model reads the words")
    reading.get_by_text("car").wait_for()
    assert reading.locator("del").all_inner_texts() == ["xyzzy"]


def test_an_error_is_shown_at_its_field(page):
    page.expected = {"400"}
    page.goto("/")
    page.get_by_role("button", name="Generate").click()
    page.locator("#prompt-error").wait_for()
    prompt = page.get_by_label("Prompt", exact=True)
    assert prompt.get_attribute("aria-invalid") == "true"
    assert prompt.get_attribute("aria-describedby") == "prompt-error"

    prompt.fill(CAR)
    page.get_by_label("Size", exact=True).select_option("custom")
    page.get_by_label("Width x height").fill("wide")
    page.get_by_role("button", name="Generate").click()
    assert "WIDTHxHEIGHT" in page.locator("#custom-error").inner_text()


def test_requests_are_copied_as_curl_python_and_cli(page, clips):
    page.goto(f"/#/edit/{clips[0]['id']}")
    page.locator(".inspector .segments").get_by_text("Edit", exact=True).click()
    page.get_by_text("Rectangle", exact=True).click()
    page.get_by_label("What the edited clip shows").fill('a "blue" car, isn\'t it')
    page.get_by_role("button", name="Copy as").click()
    dialog = page.get_by_role("dialog")
    texts = {}
    for form in ("curl", "Python", "CLI"):
        dialog.get_by_text(form, exact=True).click()
        texts[form] = dialog.locator("pre").inner_text()

    words = shlex.split(texts["curl"])
    assert json.loads(words[-1])["region"] == "24,24,48,48"
    compile(texts["Python"], "copied", "exec")
    command = shlex.split(texts["CLI"].split("\n", 1)[1].replace("\\\n", ""))
    parser = argparse.ArgumentParser()
    edit.add_arguments(parser)
    options = parser.parse_args(command[2:])
    assert (options.prompt, options.region) == ('a "blue" car, isn\'t it', (24, 24, 48, 48))
    dialog.get_by_role("button", name="Copy", exact=True).click()
    dialog.get_by_text("Copied").wait_for()
    assert page.evaluate("navigator.clipboard.readText()") == texts["CLI"]


def test_the_timeline_works_by_keyboard(page, clips):
    page.goto(f"/#/edit/{clips[0]['id']}")
    page.locator(".inspector .segments").get_by_text("Extend", exact=True).click()
    edge = page.get_by_role("slider", name="Seconds added after")
    edge.focus()
    page.keyboard.press("ArrowRight")
    assert edge.get_attribute("aria-valuenow") == "1.125"
    page.keyboard.press("Shift+ArrowRight")
    assert page.get_by_label("Seconds to add").input_value() == "2.125"


@pytest.mark.parametrize("width", [360, 900, 1440])
def test_views_fit_and_every_control_has_a_name(page, clips, width):
    page.set_viewport_size({"width": width, "height": 800})
    for view in ("", "storyboard", f"edit/{clips[0]['id']}"):
        page.goto(f"/#/{view}")
        page.locator("main h1").first.wait_for()
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        unnamed = page.evaluate(UNNAMED)
        assert unnamed == []


def test_colours_follow_the_system_and_the_button(page):
    page.emulate_media(color_scheme="dark")
    page.goto("/")
    ground = "getComputedStyle(document.body).backgroundColor"
    dark = page.evaluate(ground)
    page.get_by_role("button", name="Colours").click()
    light = page.evaluate(ground)
    assert dark != light
    page.reload()
    assert page.evaluate(ground) == light
