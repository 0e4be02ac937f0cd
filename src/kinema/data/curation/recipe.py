"""The recipe of a data set: every setting once, with its unit. `kinema data build --recipe data.toml` reads
it strictly.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from kinema.config import check_range
from kinema.endpoint import Endpoint
from kinema.errors import ConfigError


@dataclass(frozen=True)
class CutSettings:
    """How a file is cut into shots. See `kinema.data.curation.cuts`.

    `threshold` is the mean change of hue, saturation and value (0 to 255) between neighbouring frames that
    makes a cut (PySceneDetect's ContentDetector and its default). A change that is undone within `flash_s` is
    a flash and not a cut. Frames with a mean brightness below `black` (0 to 1) belong to no shot, so a fade
    to black ends one. With `detector` "transnetv2" or "module:function", that function decides instead; see
    `kinema.data.curation.plug_ins`.
    """

    detector: str = "content"
    threshold: float = 27.0
    flash_s: float = 0.2
    black: float = 0.05

    def __post_init__(self) -> None:
        if self.detector not in ("content", "none", "transnetv2") and ":" not in self.detector:
            raise ConfigError(
                f"detector={self.detector!r} is not 'content', 'transnetv2', 'none' or a function "
                "called module:function"
            )
        if self.threshold <= 0 or self.flash_s < 0 or not 0 <= self.black < 1:
            raise ConfigError(
                f"threshold={self.threshold:g} must be positive, flash_s={self.flash_s:g} not negative, "
                "black a share below 1"
            )

    @property
    def function(self) -> str | None:
        """The detector as "module:function"; None if the threshold decides."""
        if self.detector == "transnetv2":
            return "kinema.data.curation.transnet:cuts"
        return self.detector if ":" in self.detector else None


@dataclass(frozen=True)
class ClipSettings:
    """The clips into which shots are cut: at `fps`, each the longest possible up to `max_frames`.

    A clip keeps the aspect ratio of its source and has about `area` pixels, at most those of the source. With
    `crop`, a fixed (height, width), it is scaled to cover that size and cropped to the centre. Lengths and
    sides are rounded down to sizes that the VAE accepts. `borders` says what is done with clips that have
    black borders.
    """

    fps: float = 8.0
    min_frames: int = 9
    max_frames: int = 17
    area: int = 128 * 128
    crop: tuple[int, int] | None = None
    borders: Literal["crop", "drop", "keep"] = "crop"

    def __post_init__(self) -> None:
        if self.fps <= 0 or not 1 <= self.min_frames <= self.max_frames:
            raise ConfigError(
                f"fps={self.fps:g} must be positive and 1 <= min_frames={self.min_frames} <= "
                f"max_frames={self.max_frames}"
            )
        if self.area < 1 or (self.crop is not None and min(self.crop) < 1):
            raise ConfigError(f"area={self.area} and crop={self.crop} are pixels: at least 1")


@dataclass(frozen=True)
class FilterSettings:
    """The limits of a kept clip. `kinema.data.curation.scores` defines the scores; shares are 0 to 1.

    Stills are not tested for motion, rate and length.
    """

    min_side: int = 64
    """Pixels of the shorter side of the source without borders."""
    min_motion: float = 0.005
    """Frame diagonals per second; a clip below is static."""
    max_motion: float = 1.5
    min_sharpness: float = 20.0
    min_fps: float = 6.0
    """Rate of the source; below, frames would be repeated."""
    min_brightness: float = 0.06
    max_brightness: float = 0.94
    min_contrast: float = 0.03
    max_border: float = 0.5
    """Share of the frame that black borders may cover."""

    def __post_init__(self) -> None:
        check_range(self, ("min_brightness", "max_brightness", "min_contrast", "max_border"), 0, 1)
        if self.min_motion > self.max_motion or self.min_brightness > self.max_brightness:
            raise ConfigError(
                "a minimum is above its maximum: min_motion <= max_motion and min_brightness <= "
                "max_brightness"
            )


@dataclass(frozen=True)
class DedupSettings:
    """When two clips of different shots are duplicates. See `kinema.data.curation.dedup`.

    The hashes of their middle frames differ in at most `max_bits` of 64, and no cell of their 16 x 16
    thumbnails differs by more than `max_difference` of 255. `max_bits = -1` keeps all clips.
    """

    max_bits: int = 10
    max_difference: float = 14.0

    def __post_init__(self) -> None:
        check_range(self, ("max_bits",), -1, 64)
        check_range(self, ("max_difference",), 0, 255)


@dataclass(frozen=True)
class CaptionSettings:
    """The writer of captions, and the checks that its captions must pass. See
    `kinema.data.curation.steps.caption`.

    `writer` is "model" (the captioner `model`: "shipped" or a folder), "endpoint" (the vision model called
    `model` at the address `endpoint`, which gets `pictures` frames of at most `side` pixels, `parallel` clips
    at a time) or "file" (a .csv or .jsonl with the columns path and caption). Each clip gets `tries` captions
    of every form, sampled at `temperature`; the first that passes is used. If a clip also has captions from
    its file, the written ones are used in a `share` of the clips: 0.95 in DALL-E 3.
    """

    writer: Literal["none", "model", "endpoint", "file"] = "none"
    model: str = "shipped"
    endpoint: str = ""
    file: str = ""
    forms: tuple[Literal["short", "medium", "detailed"], ...] = ("short", "medium", "detailed")
    language: Literal["en", "zh"] = "en"
    share: float = 0.95
    temperature: float = 0.7
    tries: int = 2
    seed: int = 0
    min_words: int = 3
    max_words: int = 150
    max_repeats: int = 2
    """How often the same three consecutive words may occur."""
    max_same: float = 0.05
    """A caption that more than this share of the clips, and more than `always_same`, have is refused."""
    always_same: int = 10
    min_confidence: float = 0.5
    """Geometric mean of the probabilities of the words, if the writer gives it."""
    min_agreement: float = 0.5
    """Cosine of clip and caption by the CLIP of the model `clip`, if it knows all words; -1 turns the check
    off.
    """
    clip: str = "shipped"
    pictures: int = 4
    side: int = 512
    timeout_s: float = 60.0
    parallel: int = 4

    def __post_init__(self) -> None:
        check_range(self, ("share", "max_same", "min_confidence"), 0, 1)
        check_range(self, ("tries", "max_repeats", "pictures", "parallel", "min_words"), 1)
        check_range(self, ("side",), 32)
        check_range(self, ("min_agreement",), -1, 1)
        check_range(self, ("temperature",), 0)
        if not self.forms or self.timeout_s <= 0 or self.max_words < self.min_words:
            raise ConfigError("forms are not empty, timeout_s is positive, and max_words >= min_words")
        for writer, name in (("endpoint", "endpoint"), ("file", "file")):
            if (self.writer == writer) != bool(getattr(self, name)):
                raise ConfigError(
                    f"writer='{self.writer}' and {name}='{getattr(self, name)}' do not go together: "
                    "give both or neither"
                )
        if self.writer == "endpoint":
            self.open_endpoint()

    def open_endpoint(self) -> Endpoint:
        """The endpoint of the vision model. Raises `ConfigError` if the address is invalid."""
        return Endpoint(
            self.endpoint, model=self.model, temperature=self.temperature, timeout_s=self.timeout_s
        )


@dataclass(frozen=True)
class AgreementSettings:
    """Filters by the CLIP of the model `clip`, which is used only if `min_caption` or `max_same` is given.

    `min_caption` is the least cosine of a clip and its best caption. Of two clips of different files whose
    cosine is above `max_same`, one is dropped: they show the same content, though not the same pixels. Both
    limits depend on the CLIP; the column `scores` has its values.
    """

    clip: str = "shipped"
    min_caption: float | None = None
    max_same: float | None = None

    def __post_init__(self) -> None:
        for name in ("min_caption", "max_same"):
            value = getattr(self, name)
            if value is not None and not -1 <= value <= 1:
                raise ConfigError(f"{name}={value:g} is a cosine: use -1 to 1")

    @property
    def is_enabled(self) -> bool:
        """Whether a filter needs the CLIP."""
        return self.min_caption is not None or self.max_same is not None


@dataclass(frozen=True)
class ScorerRule:
    """A scorer as "module:function" (see `kinema.data.curation.plug_ins`), and the limits of its score."""

    function: str
    min: float | None = None
    max: float | None = None

    def __post_init__(self) -> None:
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ConfigError(f"min={self.min:g} is above max={self.max:g}")


@dataclass(frozen=True)
class WorkSettings:
    """How the work is run. It does not change the result, except for files that need a longer deadline.

    A file may take `deadline_s` plus its own duration; then its child process is killed. The build stops if
    more than `error_budget` of all files (and more than three) cannot be used.
    """

    deadline_s: float = 60.0
    error_budget: float = 0.25
    shard_clips: int = 256

    def __post_init__(self) -> None:
        if self.deadline_s <= 0 or not 0 <= self.error_budget <= 1 or self.shard_clips < 1:
            raise ConfigError(
                f"deadline_s={self.deadline_s:g} must be positive, error_budget={self.error_budget:g} a "
                "share, shards not empty"
            )


@dataclass(frozen=True)
class DataRecipe:
    """All settings of a build. `vae` is "shipped", a model folder or an export; `licence` is for files
    without their own.
    """

    vae: str = "shipped"
    licence: str = "unknown"
    device: str = "auto"
    side: int = 256
    """Longest side, in pixels, of the frames that are analyzed."""
    pixels: bool = True
    """Whether the data set also holds the pixels of its clips, which a VAE and a CLIP are trained on."""
    cuts: CutSettings = field(default_factory=CutSettings)
    clips: ClipSettings = field(default_factory=ClipSettings)
    filters: FilterSettings = field(default_factory=FilterSettings)
    dedup: DedupSettings = field(default_factory=DedupSettings)
    captions: CaptionSettings = field(default_factory=CaptionSettings)
    agreement: AgreementSettings = field(default_factory=AgreementSettings)
    scorers: Mapping[str, ScorerRule] = field(default_factory=dict)
    """Further scores by the names that appear in reasons."""
    work: WorkSettings = field(default_factory=WorkSettings)

    def __post_init__(self) -> None:
        check_range(self, ("side",), 64)
