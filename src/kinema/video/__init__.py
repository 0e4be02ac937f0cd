"""Video in memory and in files.

    video.py      Video: uint8 frames and a rate; read, save, resampled
    reading.py    any container and codec -> frames at a constant rate (PyAV)
    writing.py    VideoWriter: frames -> .mp4, .webm, .mkv, one at a time (PyAV)
    scanning.py   headers, and files decoded once, frame by frame or in spans
    pictures.py   .png, .jpg, .webp, .gif, in and out (Pillow)
    gif.py        animated GIF with one palette
    metadata.py   text that travels inside a file
    resize.py     crop, pad and stretch frames to a size
    sheet.py      contact_sheet: several videos as one picture
    pyav.py       PyAV, loaded when first needed

Importing this package needs NumPy and Pillow only; the first video file loads PyAV.
"""

from kinema.video.pictures import png_bytes, save_image
from kinema.video.reading import read_metadata
from kinema.video.sheet import contact_sheet
from kinema.video.video import Video
from kinema.video.writing import VideoWriter

__all__ = ["Video", "VideoWriter", "contact_sheet", "png_bytes", "read_metadata", "save_image"]
