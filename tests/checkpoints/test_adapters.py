import pytest
import torch
from safetensors.torch import save_file

from kinema.checkpoints.adapters import LoRAFile, add_lora, lora_state, merge_lora, read_lora, save_lora
from kinema.checkpoints.key_maps import dit_keys
from kinema.errors import ConfigError, ModelError
from kinema.models.conditioning import Conditioning, TextStates
from kinema.models.dit import DiT, DiTConfig

TINY = DiTConfig(
    in_channels=4, out_channels=4, d=48, num_layers=2, num_heads=4, ffn_dim=80, text_dim=20, freq_dim=32
)
LAYERS = (
    "self_attn.q",
    "self_attn.k",
    "self_attn.v",
    "self_attn.o",
    "cross_attn.q",
    "cross_attn.k",
    "cross_attn.v",
    "cross_attn.o",
    "ffn.0",
    "ffn.2",
)


def network():
    torch.manual_seed(0)
    dit = DiT(TINY)
    torch.nn.init.normal_(dit.head.projection.weight, std=0.2)
    return dit.requires_grad_(False)


def answer(dit):
    generator = torch.Generator().manual_seed(1)
    x, states = torch.randn(1, 4, 2, 4, 4, generator=generator), torch.randn(3, 20, generator=generator)
    return dit.predict(x, torch.tensor([0.4]), Conditioning(TextStates(states, (3,))))


def pairs(rank=3):
    """Random pairs by the original names of the layers, and the alpha of each."""
    generator = torch.Generator().manual_seed(2)
    shapes = {ours: tensor.shape for ours, tensor in DiT(TINY).state_dict().items()}
    names = {theirs: ours for ours, theirs in dit_keys(TINY, "wan").items()}
    result = {}
    for i in range(2):
        for layer in LAYERS:
            out, into = shapes[names[f"blocks.{i}.{layer}.weight"]]
            down, up = (
                torch.randn(rank, into, generator=generator),
                torch.randn(out, rank, generator=generator),
            )
            result[f"blocks.{i}.{layer}"] = down, up, float(i + 1)
    return result


def diffusers_name(layer):
    ours = {theirs: name for name, theirs in dit_keys(TINY, "wan").items()}[f"{layer}.weight"]
    return dit_keys(TINY, "diffusers")[ours].removesuffix(".weight")


NAMINGS = {
    "diffusers": lambda layer: (
        f"transformer.{diffusers_name(layer)}.lora_A.weight",
        f"transformer.{diffusers_name(layer)}.lora_B.weight",
        f"transformer.{diffusers_name(layer)}.alpha",
    ),
    "peft": lambda layer: tuple(
        f"base_model.model.{diffusers_name(layer)}.{end}"
        for end in ("lora_A.default.weight", "lora_B.default.weight", "alpha")
    ),
    "original": lambda layer: tuple(
        f"diffusion_model.{layer}.{end}" for end in ("lora_A.weight", "lora_B.weight", "alpha")
    ),
    "kohya": lambda layer: tuple(
        f"diffusion_model.{layer}.{end}" for end in ("lora_down.weight", "lora_up.weight", "alpha")
    ),
    "musubi": lambda layer: tuple(
        f"lora_unet_{layer.replace('.', '_')}.{end}"
        for end in ("lora_down.weight", "lora_up.weight", "alpha")
    ),
}


def written(path, naming):
    state = {}
    for layer, (down, up, alpha) in pairs().items():
        names = NAMINGS[naming](layer)
        state |= dict(zip(names, (down, up, torch.tensor(alpha))))
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, path)
    return state


@pytest.mark.parametrize("naming", NAMINGS)
def test_every_naming_gives_the_same_weights(tmp_path, naming):
    written(tmp_path / "lora.safetensors", naming)
    dit, names = network(), {theirs: ours for ours, theirs in dit_keys(TINY, "wan").items()}
    before = {name: tensor.clone() for name, tensor in dit.state_dict().items()}
    adapters = read_lora(tmp_path / "lora.safetensors", dit)
    assert len(adapters) == 20
    merge_lora(dit, adapters, 0.5)
    for layer, (down, up, alpha) in pairs().items():
        ours = names[f"{layer}.weight"]
        torch.testing.assert_close(dit.state_dict()[ours], before.pop(ours) + 0.5 * alpha / 3 * up @ down)
    assert all(torch.equal(dit.state_dict()[name], tensor) for name, tensor in before.items())


@pytest.mark.parametrize(
    ("naming", "converter"),
    [
        ("kohya", "_convert_non_diffusers_wan_lora_to_diffusers"),
        ("musubi", "_convert_musubi_wan_lora_to_diffusers"),
    ],
)
def test_names_are_those_that_diffusers_converts_to(tmp_path, naming, converter):
    conversion = pytest.importorskip("diffusers.loaders.lora_conversion_utils")
    state = written(tmp_path / "theirs.safetensors", naming)
    converted = getattr(conversion, converter)(dict(state))
    save_file(
        {name: tensor.contiguous() for name, tensor in converted.items()}, tmp_path / "converted.safetensors"
    )
    first, second = (
        read_lora(tmp_path / f"{name}.safetensors", network()) for name in ("theirs", "converted")
    )
    assert first.keys() == second.keys()
    for layer, adapter in first.items():
        torch.testing.assert_close(adapter.delta(), second[layer].delta())


def test_several_adapters_add_up_and_are_taken_off_again(tmp_path):
    written(tmp_path / "lora.safetensors", "kohya")
    dit, once = network(), network()
    adapters = read_lora(tmp_path / "lora.safetensors", dit)
    for scale in (0.3, 0.7):
        merge_lora(dit, adapters, scale)
    merge_lora(once, adapters)
    torch.testing.assert_close(answer(dit), answer(once))
    merge_lora(dit, adapters, -1.0)
    torch.testing.assert_close(answer(dit), answer(network()), rtol=1e-4, atol=1e-4)


def test_a_new_adapter_changes_nothing_and_a_trained_one_is_what_its_file_merges(tmp_path):
    dit = add_lora(network(), rank=2, alpha=4.0)
    torch.testing.assert_close(answer(dit), answer(network()), rtol=0, atol=0)
    assert {
        name.rsplit(".", 1)[1] for name, parameter in dit.named_parameters() if parameter.requires_grad
    } == {"down", "up"}
    with torch.no_grad():
        for name, parameter in dit.named_parameters():
            if name.endswith(".up"):
                parameter.normal_(std=0.1)
    save_lora(tmp_path / "lora.safetensors", dit)
    merged = network()
    merge_lora(merged, read_lora(tmp_path / "lora.safetensors", merged))
    torch.testing.assert_close(answer(dit), answer(merged), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(answer(dit), answer(network()), atol=1e-3)
    assert len(lora_state(dit)) == 40


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda s: s.update({"diffusion_model.blocks.7.self_attn.q.lora_A.weight": torch.zeros(3, 48)}),
            r"20/21 fit.*blocks\.7",
        ),
        (
            lambda s: s.update({"diffusion_model.blocks.0.self_attn.q.lora_A.weight": torch.zeros(3, 64)}),
            r"self_attention\.to_q is 48x3 by 3x64",
        ),
        (lambda s: s.pop("diffusion_model.blocks.0.ffn.0.lora_B.weight"), r"mlp\.expand has no up matrix"),
        (lambda s: s.clear() or s.update({"x": torch.zeros(1)}), r"0/1 fit, these do not: x"),
    ],
    ids=["another depth", "another width", "half a pair", "no adapter"],
)
def test_an_adapter_of_another_model_is_refused_with_what_does_not_fit(tmp_path, change, said):
    state = written(tmp_path / "lora.safetensors", "original")
    change(state)
    save_file(state, tmp_path / "lora.safetensors")
    with pytest.raises(ModelError, match=said):
        read_lora(tmp_path / "lora.safetensors", network())


def test_words_of_the_command_line():
    assert LoRAFile.parse("a.safetensors").scale == 1
    assert LoRAFile.parse("a.safetensors:0.8").scale == 0.8
    assert LoRAFile.parse("dir/a.safetensors:-1:low").expert == "low"
    with pytest.raises(ConfigError, match="is not an adapter"):
        LoRAFile.parse("a.safetensors:0.8:middle")
    with pytest.raises(ConfigError, match="no layer ends with 'to_x'"):
        add_lora(network(), rank=2, alpha=2.0, targets=("to_q", "to_x"))
