import re
from base64 import b64decode

import jinja2
import numpy as np
import pytest

from kinema.errors import OutputError
from kinema.report import image_url, plot_svg, video_url, write_page
from kinema.video import Video, save_image


@pytest.fixture
def template(tmp_path):
    file = tmp_path / "templates" / "demo.html"
    file.parent.mkdir()
    file.write_text(
        '{% extends "page.html" %}{% from "macros.html" import clip_figure, number_table %}{% block body %}'
        "{% for clip in clips %}{% call clip_figure(video_url(clip.path)) %}{{ clip.prompt }}{% endcall %}"
        "{% endfor %}"
        '{{ number_table(["slot", "prompts"], [["noun", 3]]) }}{% endblock %}'
    )
    return file


def test_a_page_holds_its_videos_and_escapes_its_values(tmp_path, template):
    path = Video(np.zeros((2, 16, 16, 3), np.uint8), 8).save(tmp_path / "a.mp4")
    file = tmp_path / "index.html"

    assert (
        write_page(file, template, {"title": "<a> & b", "clips": [{"path": path, "prompt": "a <b> dog"}]})
        == file
    )

    page = file.read_text(encoding="utf-8")
    assert "<title>&lt;a&gt; &amp; b</title>" in page
    assert "a &lt;b&gt; dog</figcaption>" in page
    assert '<td>noun</td><td class="number">3</td>' in page
    embedded = re.search(r"data:video/mp4;base64,([^\"]+)", page)
    assert embedded
    assert b64decode(embedded[1]) == path.read_bytes()


def test_a_value_that_is_not_given_leaves_no_page(tmp_path, template):
    with pytest.raises(jinja2.UndefinedError):
        write_page(tmp_path / "index.html", template, {"title": "t"})
    assert not (tmp_path / "index.html").exists()


def test_a_folder_in_the_way_is_an_output_error(tmp_path, template):
    (tmp_path / "index.html").mkdir()
    with pytest.raises(OutputError, match=r"index\.html"):
        write_page(tmp_path / "index.html", template, {"title": "t", "clips": []})


def test_a_video_in_memory_becomes_an_mp4(tmp_path):
    url = video_url(Video(np.full((3, 16, 16, 3), 200, np.uint8), 8))
    (tmp_path / "back.mp4").write_bytes(b64decode(url.removeprefix("data:video/mp4;base64,")))
    back = Video.read(tmp_path / "back.mp4")
    assert (back.num_frames, back.height, back.width, back.fps) == (3, 16, 16, 8)


def test_an_image_is_embedded_as_it_is(tmp_path):
    save_image(tmp_path / "a.png", np.zeros((4, 4, 3), np.uint8))
    assert b64decode(image_url(tmp_path / "a.png").split(",")[1]) == (tmp_path / "a.png").read_bytes()


def test_a_plot_is_an_svg_element_that_repeats_bit_for_bit():
    from matplotlib.figure import Figure

    def plot():
        figure = Figure()
        axes = figure.add_subplot(xlabel="motion", ylabel="clips")
        axes.hist([1, 2, 3])
        return plot_svg(figure)

    assert plot() == plot()
    assert plot().startswith("<svg")
    assert ">motion</text>" in plot()
