"""What every test runs under: few threads that sleep when idle, and shapes in signatures checked at every
call.
"""

import os

os.environ["OMP_WAIT_POLICY"] = "PASSIVE"  # read once, when torch is imported

try:
    import beartype  # noqa: F401
    from jaxtyping import install_import_hook
except ImportError:
    shapes_are_checked = False
else:
    install_import_hook(
        ["kinema.nn", "kinema.models", "kinema.diffusion", "kinema.generation"],
        # As text, because the hook wants it so. With the numeric tower an int is a float, as it is to other
        # type checkers.
        "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))",
    )
    shapes_are_checked = True

import pytest
import torch

from kinema import device

# One thread per worker of pytest-xdist; OMP_NUM_THREADS=1 asks for one too.
torch.set_num_threads(1 if "PYTEST_XDIST_WORKER" in os.environ else min(2, torch.get_num_threads()))

WORDS = ("a", "the", "red", "blue", "fox", "ball", "runs", "rolls", "across", "meadow", "slowly")


def pytest_addoption(parser):
    parser.addoption(
        "--bf16",
        action="store_true",
        help='treat bfloat16 as fast, so that "auto" means bf16 as on an AVX512-BF16 CPU; emulated elsewhere',
    )


def pytest_configure(config):
    if config.getoption("--bf16"):
        device.has_fast_bf16 = lambda _: True


@pytest.fixture(params=["fp32", "bf16"])
def precision(request, monkeypatch):
    """Runs a test in fp32 and in bf16 on every machine, and makes "auto" mean that; bf16 may be emulated."""
    monkeypatch.setattr(device, "has_fast_bf16", lambda _: request.param == "bf16")
    return request.param


def pytest_report_header() -> str:
    shapes = "checked" if shapes_are_checked else "NOT checked: jaxtyping or beartype is missing"
    return f"torch {torch.__version__}, shapes in signatures {shapes}"


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory):
    """A whole model folder with tiny random networks."""
    from kinema.checkpoints.folders import save_model
    from kinema.checkpoints.manifest import Manifest
    from kinema.models.clip import CLIP, CLIPConfig
    from kinema.models.dit import DiT, DiTConfig
    from kinema.models.vae import VAE, VAEConfig
    from kinema.prompts.word_tokenizer import WordTokenizer

    torch.manual_seed(0)
    tokenizer = WordTokenizer(WORDS, max_length=16)
    text = {"max_length": 16, "text_width": 16, "text_layers": 1, "text_heads": 2}
    clip = CLIP(
        CLIPConfig(len(tokenizer), **text, video_width=16, video_layers=1, video_heads=2, embed_dim=16),
        tokenizer,
    )
    vae = VAE(
        VAEConfig(base_dim=8, dim_mult=(1, 1, 1), z_dim=6, latents_mean=(0.1,) * 6, latents_std=(2.0,) * 6)
    )
    dit = DiT(
        DiTConfig(
            in_channels=6,
            out_channels=6,
            d=32,
            num_layers=2,
            num_heads=2,
            ffn_dim=64,
            text_dim=16,
            freq_dim=32,
        )
    )
    with torch.no_grad():  # so that the prompt makes a difference
        torch.nn.init.normal_(dit.head.projection.weight, std=0.2)
        dit.text_embedding.expand.weight.mul_(20)
        dit.text_embedding.project.weight.mul_(20)
    manifest = Manifest(
        name="tiny",
        licence="Apache-2.0",
        fps=8.0,
        sides=(32, 128, 16),
        frames=(1, 17),
        default_size=(32, 48),
        default_frames=9,
        steps=3,
        sampler="euler",
        guidance=3.0,
        shift=2.0,
    )
    folder = tmp_path_factory.mktemp("models") / "tiny"
    save_model(folder, dit, vae, clip, manifest, dtype=torch.float32)
    return folder
