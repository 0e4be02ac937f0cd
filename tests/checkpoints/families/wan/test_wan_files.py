"""Models of the Wan family in every layout: there and back, and what is wrong with a folder is said."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.checkpoints.families.wan.wan_folders import peer

from kinema.checkpoints.families.wan.convert import convert
from kinema.checkpoints.families.wan.files import find_wan_files
from kinema.cli.main import main
from kinema.errors import ModelError
from kinema.generation.loading import load
from kinema.generation.request import Request

REQUEST = Request(
    "a red fox", "blue ball", width=48, height=32, frames=5, steps=2, shift=3.0, beyond_trained=True
)
PARTS = ("transformer", "transformer_2", "vae", "text_encoder")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A diffusers folder of each kind, whose heads are as wide as the published ones."""
    made = {}

    def get(kind):
        if kind not in made:
            made[kind] = tmp_path_factory.mktemp("wan") / kind
            sizes = {} if kind == "2.1-i2v" else {"num_attention_heads": 1, "attention_head_dim": 128}
            pipeline = peer(kind, **sizes)
            pipeline.transformer.to(torch.bfloat16)  # so that a conversion by way of float32 would show
            pipeline.save_pretrained(made[kind])
        return made[kind]

    return get


def tensors(folder):
    return {
        f"{part}/{name}": tensor
        for part in PARTS
        for file in sorted((folder / part).glob("*.safetensors"))
        for name, tensor in load_file(file).items()
        if name != "encoder.embed_tokens.weight"  # a copy that need not be there
    }


QUICK = {
    ("2.1-t2v", "wan"),
    ("2.1-t2v", "diffusers"),
    ("2.2-t2v-a14b", "comfy"),
    ("2.2-i2v-a14b", "wan"),
    ("2.2-ti2v-5b", "kinema"),
}
"""Every kind and every layout once; the other pairs are made of the same parts."""


@pytest.mark.parametrize(
    ("kind", "layout"),
    [
        pytest.param(kind, layout, marks=[] if (kind, layout) in QUICK else pytest.mark.slow)
        for kind in ("2.1-t2v", "2.2-t2v-a14b", "2.2-i2v-a14b", "2.2-ti2v-5b")
        for layout in ("wan", "comfy", "kinema", "diffusers")
    ],
)
def test_there_and_back_is_the_same_bit_for_bit(folders, tmp_path, kind, layout):
    folder = folders(kind)
    there = convert(folder, tmp_path / "there", layout)
    assert there.layout == layout
    back = tmp_path / "back"
    convert(there.path, back, "diffusers")
    before, after = tensors(folder), tensors(back)
    assert before.keys() == after.keys()
    assert all(
        torch.equal(before[name], after[name]) and before[name].dtype == after[name].dtype for name in before
    )
    for part in ("transformer", "vae"):
        first, second = (json.loads((place / part / "config.json").read_text()) for place in (folder, back))
        assert {key: value for key, value in first.items() if second.get(key, value) != value} == {}
    assert find_wan_files(back).has_token_times == find_wan_files(folder).has_token_times


@pytest.mark.parametrize("layout", ["wan", "comfy", pytest.param("kinema", marks=pytest.mark.slow)])
def test_every_layout_generates_the_same_latents(folders, tmp_path, layout):
    folder = folders("2.1-t2v")
    pipelines = [
        load(place, device="cpu", precision="fp32")
        for place in (folder, convert(folder, tmp_path / "there", layout).path)
    ]
    first, second = (pipeline.sample(pipeline.plan(REQUEST)) for pipeline in pipelines)
    torch.testing.assert_close(first, second, rtol=0, atol=0)


def test_diffusers_loads_what_was_converted(folders, tmp_path):
    diffusers = pytest.importorskip("diffusers")
    wan = convert(folders("2.2-t2v-a14b"), tmp_path / "wan", "wan")
    convert(wan.path, tmp_path / "again", "diffusers")
    model, folder = diffusers.WanTransformer3DModel, tmp_path / "again" / "transformer_2"
    theirs = model.from_config(model.load_config(folder, local_files_only=True))
    theirs.load_state_dict(load_file(folder / "diffusion_pytorch_model.safetensors"))
    assert (
        diffusers.WanPipeline.load_config(tmp_path / "again", local_files_only=True)["boundary_ratio"]
        == 0.875
    )


def test_the_command_line_converts_and_inspects(folders, tmp_path, capsys):
    assert (
        main(["models", "convert", str(folders("2.2-ti2v-5b")), str(tmp_path / "wan"), "--layout", "wan"])
        == 0
    )
    capsys.readouterr()
    assert main(["models", "inspect", str(tmp_path / "wan")]) == 0
    said = capsys.readouterr().out
    assert "wan-2.2-ti2v-5b, in the layout wan" in said
    assert "Apache-2.0" in said
    assert "bfloat16" in said


@pytest.fixture(scope="module")
def whole(folders, tmp_path_factory):
    """The text-to-video model in each layout: its folder, and where in it the model's path is."""
    made = {}

    def get(layout):
        if layout not in made:
            folder = tmp_path_factory.mktemp("whole") / layout
            made[layout] = folder, convert(folders("2.1-t2v"), folder, layout).path.relative_to(folder)
        return made[layout]

    return get


WEIGHTS = "transformer/diffusion_pytorch_model.safetensors"


class Runs:
    def __reduce__(self):
        return print, ("code that a pickle runs",)


def change(file, edit):
    state = load_file(file)
    edit(state)
    save_file(state, file)


@pytest.mark.parametrize(
    ("layout", "damage", "said"),
    [
        (
            "wan",
            lambda f: torch.save({"a": Runs()}, f / "Wan2.1_VAE.pth"),
            r"Wan2\.1_VAE\.pth holds more than tensors.*print",
        ),
        (
            "wan",
            lambda f: (f / "Wan2.1_VAE.pth").write_bytes((f / "Wan2.1_VAE.pth").read_bytes()[:5000]),
            r"VAE\.pth is truncated",
        ),
        ("wan", lambda f: (f / "Wan2.1_VAE.pth").unlink(), "none of the layouts"),
        (
            "wan",
            lambda f: next(f.glob("models_t5*")).unlink(),
            r"must hold one file models_t5\*\.pth, and holds none",
        ),
        (
            "wan",
            lambda f: (f / "config.json").write_text(
                (f / "config.json").read_text().replace('"ffn_dim": 48', '"ffn_dim": 64')
            ),
            r"config\.json contradicts the tensors: ffn_dim is 64, the tensors have 48",
        ),
        (
            "wan",
            lambda f: change(
                f / "diffusion_pytorch_model.safetensors", lambda s: s.pop("blocks.1.self_attn.q.weight")
            ),
            r"1 missing: blocks\.1\.self_attn\.q\.weight",
        ),
        (
            "comfy",
            lambda f: change(
                f / "diffusion_models/2.safetensors", lambda s: s.update({"blocks.0.extra": torch.zeros(1)})
            ),
            r"1 unexpected: blocks\.0\.extra",
        ),
        (
            "comfy",
            lambda f: change(
                f / "diffusion_models/2.safetensors",
                lambda s: s.update({"head.head.bias": s["head.head.bias"].int()}),
            ),
            r"not float32, float16 or bfloat16: head\.head\.bias",
        ),
        (
            "comfy",
            lambda f: change(
                f / "diffusion_models/2.safetensors",
                lambda s: s.update({"blocks.0.ffn.0.scale_weight": torch.ones(1)}),
            ),
            "scaled 8-bit weights",
        ),
        ("comfy", lambda f: shutil.rmtree(f / "vae"), "has no companion vae"),
        (
            "wan",
            lambda f: torch.save({"a": Runs()}, next(f.glob("models_t5*"))),
            r"models_t5.*\.pth holds more than tensors.*print",
        ),
        (
            "diffusers",
            lambda f: (f / WEIGHTS).write_bytes((f / WEIGHTS).read_bytes()[:-1000]),
            r"pytorch_model\.safetensors is truncated or damaged, it has \d+ bytes of \d+",
        ),
        (
            "diffusers",
            lambda f: (f / "transformer/config.json").write_text(
                (f / "transformer/config.json").read_text().replace('"ffn_dim": 48', '"ffn_dim": 64')
            ),
            r"not those of .*transformer/config\.json: .*of another shape: blocks\.0\.ffn",
        ),
        (
            "diffusers",
            lambda f: change(f / WEIGHTS, lambda s: s.pop("proj_out.bias")),
            r"1 missing: proj_out\.bias",
        ),
        (
            "diffusers",
            lambda f: change(f / WEIGHTS, lambda s: s.update(more=torch.zeros(1))),
            r"1 unexpected: more",
        ),
        (
            "diffusers",
            lambda f: change(
                f / WEIGHTS, lambda s: s.update({"proj_out.bias": s["proj_out.bias"].to(torch.float8_e4m3fn)})
            ),
            r"not float32, float16 or bfloat16: proj_out\.bias \(F8_E4M3\)",
        ),
        (
            "diffusers",
            lambda f: (f / "model_index.json").write_text(
                (f / "model_index.json").read_text().replace('"transformer": [', '"other": [')
            ),
            "names no transformer",
        ),
        (
            "diffusers",
            lambda f: (f / "transformer/diffusion_pytorch_model.safetensors").unlink(),
            "transformer has neither",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_wrong_is_named(whole, tmp_path, layout, damage, said):
    folder, path = whole(layout)
    shutil.copytree(folder, tmp_path / "damaged")
    damage(tmp_path / "damaged")
    with pytest.raises(ModelError, match=said):
        find_wan_files(tmp_path / "damaged" / path)


def test_shards_are_read_and_a_missing_one_is_named(folders, tmp_path):
    from kinema.checkpoints.tensors import write_shards

    copy = tmp_path / "copy"
    shutil.copytree(folders("2.1-t2v"), copy)
    file = copy / "transformer" / "diffusion_pytorch_model.safetensors"
    state = load_file(file)
    file.unlink()
    write_shards(copy / "transformer", file.name, state, max_bytes=200_000)
    shards = sorted((copy / "transformer").glob("*-of-*.safetensors"))
    assert len(shards) > 2
    assert {name: tensor.tolist() for name, tensor in find_wan_files(copy).backbones[0].files.items()} == {
        k: v.tolist() for k, v in state.items()
    }
    shards[1].unlink()
    with pytest.raises(ModelError, match=shards[1].name):
        find_wan_files(copy)


def test_a_layout_that_cannot_hold_the_model_is_refused(folders, tmp_path):
    with pytest.raises(ModelError, match="image encoder"):
        convert(folders("2.1-i2v"), tmp_path / "there", "wan")
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_was_changed_after_it_was_written_is_named_by_its_hash(folders, tmp_path, capsys):
    convert(folders("2.1-t2v"), tmp_path / "there", "kinema")
    assert main(["models", "verify", str(tmp_path / "there")]) == 0
    change(tmp_path / "there" / WEIGHTS, lambda state: state["proj_out.bias"].add_(1))
    assert main(["models", "verify", str(tmp_path / "there")]) == 2
    assert f"changed: {WEIGHTS}" in capsys.readouterr().err


def test_an_adapter_of_another_model_is_refused_and_listed(folders, tmp_path, capsys):
    from kinema.checkpoints.adapters import add_lora, save_lora
    from kinema.checkpoints.components import load_backbone

    save_lora(tmp_path / "other.safetensors", add_lora(load_backbone(folders("2.1-i2v")), 2, 2.0))
    words = [
        "generate",
        "a red fox",
        "--model",
        str(folders("2.1-t2v")),
        "--lora",
        str(tmp_path / "other.safetensors"),
    ]
    assert (
        main(
            [*words, "-o", str(tmp_path / "fox.mkv"), "--size", "48x32", "--frames", "5", "--beyond-trained"]
        )
        == 2
    )
    assert "is not for this model: 0/" in capsys.readouterr().err
