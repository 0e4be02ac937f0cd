"""The requests and replies, as they are in the OpenAPI document."""

import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

ALIASES = {
    "num_inference_steps": "steps",
    "guidance_scale": "guidance",
    "cfg_scale": "guidance",
    "flow_shift": "shift",
    "num_frames": "frames",
    "negative": "negative_prompt",
    "image": "input_reference",
}
"""Names of other servers, with ours."""
IGNORED = frozenset({"user", "metadata", "quality", "response_format", "n"})
"""Fields that other clients send and that change nothing here."""


def _parsed(value: Any) -> Any:
    """A list or object that came as JSON text in a form field."""
    if isinstance(value, str) and value.strip()[:1] in ("[", "{"):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            raise ValueError("it is not JSON") from None
    return value


def _numbers(value: Any) -> Any:
    """Numbers in a row from "a,b", as forms send them."""
    parsed = _parsed(value)
    return parsed.split(",") if isinstance(parsed, str) else parsed


class Media(BaseModel):
    """A clip or picture: one of its fields."""

    model_config = ConfigDict(extra="forbid")
    id: str | None = Field(None, description="a video or a character")
    file_id: str | None = Field(None, description="an uploaded file")
    image_url: str | None = Field(None, description="a data URL, or an address of an allowed host")


File = Annotated[Any, Field(description="an uploaded file, or {id}, {file_id} or {image_url}")]
Json = BeforeValidator(_parsed)


class Sampling(BaseModel):
    """Fields of every request that generates. All but `prompt` and `model` are extensions of this server."""

    model_config = ConfigDict(extra="forbid")
    model: str | None = None
    prompt: str = ""
    seed: int | None = Field(None, ge=0, lt=2**63)
    negative_prompt: str | None = None
    steps: int | None = Field(None, ge=1, le=1000)
    guidance: float | None = Field(None, ge=0, le=100)
    guidance_interval: Annotated[tuple[float, float] | None, BeforeValidator(_numbers)] = None
    shift: float | None = None
    sampler: str | None = None
    window: int | None = None
    anchor: bool | None = None
    cache: float | None = None
    beyond_trained: bool | None = None
    expand: bool = Field(False, description="expand the prompt to the style of the training captions")
    fit: Literal["crop", "pad", "stretch"] = "crop"


class Shot(BaseModel):
    """An entry of a storyboard."""

    model_config = ConfigDict(extra="forbid")
    at: float = Field(ge=0)
    prompt: str | None = None
    clip: File = None


class Keyframe(BaseModel):
    """A picture at one second."""

    model_config = ConfigDict(extra="forbid")
    at: float = Field(ge=0)
    image: File = None


class Connect(BaseModel):
    """Two clips that a transition joins."""

    model_config = ConfigDict(extra="forbid")
    first: File
    second: File


class Character(BaseModel):
    """A character of an earlier request."""

    model_config = ConfigDict(extra="forbid")
    id: str


class CreateVideo(Sampling):
    """A new video: from a prompt, pictures, a storyboard, two clips to connect, or as a loop."""

    seconds: str | None = Field(None, coerce_numbers_to_str=True, description="length, e.g. 4")
    size: str | None = Field(None, description="width x height in pixels, e.g. 1280x720")
    input_reference: File = None
    last_frame: File = None
    keyframes: Annotated[list[Keyframe], Json] = []
    characters: Annotated[list[Character], Json] = []
    frames: int | None = Field(None, ge=1, description="length in frames, in place of seconds")
    width: int | None = Field(None, ge=1)
    height: int | None = Field(None, ge=1)
    fps: float | None = Field(None, description="must be the model's rate")
    loop: bool = False
    video: File = Field(None, description="with loop: the clip that the loop begins with")
    connect: Annotated[Connect | None, Json] = None
    storyboard: Annotated[list[Shot] | None, Json] = None


class EditVideo(Sampling):
    """A clip, generated anew from a noise level on, in a region, a mask or a span of time."""

    prompt: str
    video: File
    strength: float = Field(0.6, gt=0, le=1)
    region: Annotated[tuple[int, int, int, int] | None, BeforeValidator(_numbers)] = None
    mask: File = None
    start: float = 0.0
    end: float | None = None


class ExtendVideo(Sampling):
    """A clip, made longer at its end, its start or both."""

    video: File
    seconds: str = Field(coerce_numbers_to_str=True, description="seconds that are added")
    direction: Literal["forward", "backward", "both"] = "forward"


class RemixVideo(Sampling):
    """An earlier video with another prompt and the same other settings."""

    prompt: str


class CreateCharacter(BaseModel):
    """A character: a name and a clip that shows it."""

    model_config = ConfigDict(extra="forbid")
    name: str = Field(min_length=1, max_length=100)
    video: File


class JobError(BaseModel):
    """Why a job failed."""

    code: str
    message: str


class Own(BaseModel):
    """What this server adds to a video."""

    task: str
    seed: int
    width: int
    height: int
    frames: int
    fps: float
    steps: int
    guidance: float
    sampler: str
    adjusted: list[str] = Field([], description="what was mapped to the nearest supported value")
    words: str | None = Field(None, description="how the model reads the prompt, if not as written")
    expanded_prompt: str | None = None
    phase: str | None = Field(None, description="sample or decode, while it runs")
    step: int | None = None
    total: int | None = None
    has_preview: bool = False
    attempt: int = 0
    queue_s: float | None = None
    run_s: float | None = None
    similarity: float | None = None
    notes: list[str] = []
    variants: list[str] = Field([], description="what /content offers")
    source: str | None = Field(None, description="the video that this one was made from")


class Video(BaseModel):
    """A video job."""

    id: str
    object: Literal["video"] = "video"
    model: str
    status: Literal["queued", "in_progress", "completed", "failed"]
    progress: int
    created_at: int
    completed_at: int | None = None
    expires_at: int | None = None
    prompt: str | None = None
    seconds: str
    size: str
    quality: str = "standard"
    remixed_from_video_id: str | None = None
    error: JobError | None = None
    kinema: Own


class VideoList(BaseModel):
    """A page of videos."""

    object: Literal["list"] = "list"
    data: list[Video]
    first_id: str | None
    last_id: str | None
    has_more: bool


class Deleted(BaseModel):
    """A deleted object."""

    id: str
    object: str
    deleted: Literal[True] = True


class CharacterReply(BaseModel):
    """A character."""

    id: str
    object: Literal["character"] = "character"
    name: str
    created_at: int
