"""HTML reports: one page template, and what a page embeds, so that a report is a single file without links.

A report has its own template beside the module that writes it. The template starts with `{% extends
"page.html" %}`, fills the block `body` and imports the macros of `macros.html`. Jinja2 escapes every value
that is not `Markup`.
"""

from kinema.report.embedding import image_url, plot_svg, video_url
from kinema.report.page import write_page

__all__ = ["image_url", "plot_svg", "video_url", "write_page"]
