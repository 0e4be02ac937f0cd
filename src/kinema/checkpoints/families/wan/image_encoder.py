"""The image encoder of Wan 2.1's image-to-video: hidden states of a CLIP vision transformer before its last
layer.
"""

import numpy as np
import torch
from torch import Tensor, nn

from kinema.models.conditioning import TextStates

# What CLIP was trained with (Radford et al. 2021, as transformers' CLIPImageProcessor has it).
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)


class ImageEncoder:
    """Images to hidden states (m, d) of transformers' CLIPVisionModel."""

    def __init__(self, tower: nn.Module) -> None:
        self.tower = tower
        self.size: int = tower.config.image_size  # type: ignore[union-attr, assignment]

    def encode(self, images: list[np.ndarray]) -> TextStates:
        """The hidden states of all uint8 images (h, w, 3), concatenated as one segment."""
        parameter = next(self.tower.parameters())
        pixels = torch.cat([self.pixels(image) for image in images]).to(parameter.device, parameter.dtype)
        with torch.no_grad():
            states: Tensor = (
                self.tower(pixels, output_hidden_states=True).hidden_states[-2].flatten(0, 1).float()
            )
        return TextStates(states, (len(states),))

    def pixels(self, image: np.ndarray) -> Tensor:
        """The normalised centre crop (1, 3, size, size) of an image scaled by its shorter side."""
        from PIL import Image

        height, width = image.shape[:2]
        sides = (
            (self.size, int(self.size * height / width))
            if width <= height
            else (int(self.size * width / height), self.size)
        )
        scaled = Image.fromarray(image).resize(sides, Image.Resampling.BICUBIC)
        left, top = (sides[0] - self.size) // 2, (sides[1] - self.size) // 2
        cropped = (
            np.asarray(scaled.crop((left, top, left + self.size, top + self.size)), dtype=np.float32) / 255
        )
        normalised = (cropped - np.array(MEAN, dtype=np.float32)) / np.array(STD, dtype=np.float32)
        return torch.from_numpy(normalised).permute(2, 0, 1).unsqueeze(0).contiguous()
