"""Videos, images and plots in the form in which an HTML page embeds them."""

import io
import tempfile
from base64 import b64encode
from pathlib import Path
from typing import TYPE_CHECKING

from markupsafe import Markup

from kinema.video import Video

if TYPE_CHECKING:
    from matplotlib.figure import Figure

QUALITY = 28
"""Quality (CRF of x264) of a video that is encoded for a page; the default of `Video.save` is 18."""


def video_url(video: Video | Path) -> str:
    """A data URL of an .mp4 file or of a `Video`, encoded as .mp4. Raises OSError for an unreadable file."""
    if isinstance(video, Path):
        return _data_url("video/mp4", video.read_bytes())

    with tempfile.TemporaryDirectory() as folder:
        file = video.save(Path(folder) / "clip.mp4", quality=QUALITY)
        return _data_url("video/mp4", file.read_bytes())


def image_url(file: Path) -> str:
    """A data URL of a .png file. Raises OSError if the file cannot be read."""
    return _data_url("image/png", file.read_bytes())


def plot_svg(figure: "Figure") -> Markup:
    """A matplotlib figure as an SVG element, with selectable text. Equal figures give equal elements."""
    import matplotlib

    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "kinema"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})

    document = buffer.getvalue()
    return Markup(document[document.index("<svg") :])


def _data_url(media_type: str, content: bytes) -> str:
    return f"data:{media_type};base64,{b64encode(content).decode()}"
