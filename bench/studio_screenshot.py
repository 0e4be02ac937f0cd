"""Saves a picture of the studio with a small library: docs/images/studio.png.

Needs Chromium and playwright (`pip install -e '.[dev]'`) and a running server, whose library should be empty:

    kinema serve --data /tmp/studio --port 8123 &
    python bench/studio_screenshot.py http://127.0.0.1:8123 docs/images/studio.png
"""

import shutil
import sys

from openai import OpenAI
from PIL import Image
from playwright.sync_api import sync_playwright

PROMPTS = (
    ("a rocket rises into the night sky over the desert", "128x128", (4,)),
    ("a red car drives along the road to the right", "128x128", (1, 2, 3)),
    ("a horse walks on the grass at dawn", "160x96", (1,)),
    ("a penguin walks across the snow at sunset", "128x128", (0,)),
)
"""Prompt, size and seeds, the oldest first."""


def fill(client: OpenAI) -> None:
    """Make the videos of the library."""
    for prompt, size, seeds in PROMPTS:
        takes = [client.videos.create(prompt=prompt, size=size, extra_body={"seed": seed}) for seed in seeds]
        for take in takes:
            client.videos.poll(take.id)


def main() -> None:
    """Fill the library of the server at the first argument if it is empty, and save the picture."""
    url, path = sys.argv[1:3]
    client = OpenAI(base_url=f"{url}/v1", api_key="none")
    if not client.videos.list(limit=1).data:
        fill(client)

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1360, "height": 850}, color_scheme="dark")
        page.goto(url)
        page.get_by_label("Prompt", exact=True).fill("a turtle walks slowly over the beach at dawn")
        page.locator(".composer").get_by_text("2", exact=True).click()
        page.locator(".composer summary", has_text="Advanced").click()
        page.get_by_label("Steps").fill("100")
        page.locator(".composer summary", has_text="Advanced").click()
        page.get_by_role("button", name="Generate").click()
        previews = page.get_by_role("img", name="Preview")
        previews.nth(1).wait_for(timeout=120_000)
        page.evaluate("() => { scrollTo(0, 0); document.activeElement.blur(); }")
        page.wait_for_timeout(1000)
        page.screenshot(path=path)
        browser.close()

    for video in client.videos.list(limit=2):
        if video.status in ("queued", "in_progress"):
            client.videos.delete(video.id)
    picture = Image.open(path).convert("RGB")
    palette = picture.quantize(256)
    picture.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG).save(path, optimize=True)


if __name__ == "__main__":
    main()
