"""A job: the folder that holds a request, and its latents from before they are decoded, so that no sampling is ever lost."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from kinema.errors import OutputError, RequestError
from kinema.generate.request import Request
from kinema.shapes import Float
from kinema.video.atomic import atomic_output, output_errors

REQUEST = "request.json"
LATENTS = "latents.safetensors"


@dataclass(frozen=True)
class Job:
    """`request.json` and, once sampling is done, `latents.safetensors` in one folder. A file is there whole or not at all."""

    folder: Path

    def save_request(self, request: Request) -> None:
        """Write the request, and take away latents that an earlier one left. Raises `OutputError` when the folder cannot be written."""
        _write(self.folder / REQUEST, lambda path: path.write_text(request.to_json() + "\n", encoding="utf-8"))
        with output_errors(self.folder / LATENTS):
            (self.folder / LATENTS).unlink(missing_ok=True)

    def save_latents(self, latents: Float[Tensor, "c lf lh lw"], *, model_hash: str) -> None:
        """Write the clean latents of one video and the hash of the model they belong to. Raises `OutputError`."""
        content = {"latents": latents.cpu().contiguous()}
        _write(self.folder / LATENTS, lambda path: save_file(content, path, metadata={"model_hash": model_hash}))

    def request(self) -> Request:
        """The request of this job. Raises `RequestError` when the folder holds none."""
        try:
            text = (self.folder / REQUEST).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise RequestError(f"{self.folder} is not the folder of a job: {error}") from None
        return Request.from_json(text)

    def latents(self, *, model_hash: str) -> Float[Tensor, "c lf lh lw"]:
        """The latents of this job. Raises `RequestError` when its sampling has not finished or another model made them."""
        path = self.folder / LATENTS
        if not path.is_file():
            raise RequestError(f"{self.folder} holds no latents: its sampling has not finished, so generate it again")
        try:
            with safe_open(path, framework="pt") as file:
                maker = file.metadata()["model_hash"]
                latents: Tensor = file.get_tensor("latents").clone()
        except (SafetensorError, OSError, KeyError, TypeError) as error:
            raise RequestError(f"{path} is damaged or not the latents of a job ({error}): generate it again") from None
        if maker != model_hash:
            raise RequestError(f"{path} was made by model {maker}, not by {model_hash}: load that model to decode it")
        return latents


def _write(path: Path, write: Callable[[Path], object]) -> None:
    """Have `path` written, whole or not at all; safetensors has an error of its own for a full disk."""
    with atomic_output(path) as partial:
        try:
            write(partial)
        except (OSError, SafetensorError) as error:
            raise OutputError(f"cannot write {path}: {error}") from error
