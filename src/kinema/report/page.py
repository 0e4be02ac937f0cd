"""Rendering of a report from its template."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import ChoiceLoader, Environment, FileSystemLoader, StrictUndefined

from kinema.files import atomic_file
from kinema.report.embedding import image_url, video_url

SHARED_TEMPLATES = Path(__file__).parent
"""Folder of `page.html` and `macros.html`, which every report's template can extend and import."""


def write_page(file: Path, template: Path, values: Mapping[str, Any]) -> Path:
    """`file`, written atomically from the Jinja2 template with `values`; `page.html` needs the value `title`.

    The page is written while it is rendered, so that embedded videos are not all in memory at once: pass
    their paths and let the template call `video_url`. Raises `OutputError` if the file cannot be written, and
    `jinja2.UndefinedError` if the template uses a value that is not given.
    """
    environment = Environment(
        loader=ChoiceLoader([FileSystemLoader(template.parent), FileSystemLoader(SHARED_TEMPLATES)]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(video_url=video_url, image_url=image_url)
    page = environment.get_template(template.name).generate(values)

    with atomic_file(file) as partial, partial.open("w", encoding="utf-8") as stream:
        stream.writelines(page)

    return file
