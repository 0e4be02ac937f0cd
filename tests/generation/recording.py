"""A backbone that records its calls."""

from dataclasses import replace

from kinema.generation.pipeline import Pipeline


class RecordingBackbone:
    """`backbone`, which appends the number of clips of every prediction to `batches`, and every conditioning
    that it prepares to `prepared`.
    """

    def __init__(self, backbone):
        self.backbone, self.batches, self.prepared = backbone, [], []

    def __getattr__(self, name):
        return getattr(self.backbone, name)

    def prepare(self, conditioning):
        """The result of the backbone."""
        self.prepared.append(conditioning)
        return self.backbone.prepare(conditioning)

    def predict(self, latents, t, prepared, first_frame=0):
        """The result of the backbone."""
        self.batches.append(len(latents))
        return self.backbone.predict(latents, t, prepared, first_frame)


def recorded(pipeline):
    """A pipeline with the same networks, and its recording backbone for high noise."""
    backbone = RecordingBackbone(pipeline.denoiser.backbones["high"])
    return with_denoiser(pipeline, backbones={**pipeline.denoiser.backbones, "high": backbone}), backbone


def with_denoiser(pipeline, **changes):
    """A pipeline with another denoiser."""
    denoiser = replace(pipeline.denoiser, **changes)
    return Pipeline(denoiser, pipeline.vae, model=pipeline.model, model_hash=pipeline.model_hash)
