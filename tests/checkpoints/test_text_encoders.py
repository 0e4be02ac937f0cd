"""Text encoders in folders of transformers: packed states are those that transformers computes with padding,
and a model folder names the encoder that it was trained with.
"""

import shutil
import sys

import pytest
import torch
from tests.checkpoints.text_encoder_folders import WIDTH, save_text_encoder_folder

from kinema.checkpoints.text_encoders import (
    ENVIRONMENT,
    find_text_encoder,
    kind_of,
    save_text_encoder,
    text_source,
)
from kinema.errors import ConfigError, ModelError, UnknownName
from kinema.models.text_encoders import TEXT_SETTINGS, TextSettings

pytest.importorskip("transformers")
KINDS = ("t5", "umt5", "clip_hf", "llm")
PROMPTS = ["a red fox runs", "", "a blue ball rolls slowly across the meadow in the snow, 雪"]


@pytest.fixture(scope="module", params=KINDS)
def encoder(request, tmp_path_factory):
    """(kind, folder, network, tokenizer)"""
    folder = tmp_path_factory.mktemp("encoders") / request.param
    return request.param, folder, *save_text_encoder_folder(folder, request.param)


@pytest.fixture(scope="module")
def llm(tmp_path_factory):
    folder = tmp_path_factory.mktemp("encoders") / "llm"
    return folder, *save_text_encoder_folder(folder, "llm")


@torch.no_grad()
def padded(network, tokenizer, texts, layer=None, crop=0):
    """The states that transformers computes for a padded batch with its mask, one tensor per text."""
    batch = tokenizer(texts, padding=True, return_tensors="pt")
    output = network(batch["input_ids"], batch["attention_mask"], output_hidden_states=True)
    states = output.last_hidden_state if layer is None else output.hidden_states[layer]
    return [row[mask.bool()][crop:] for row, mask in zip(states, batch["attention_mask"])]


def test_states_are_those_of_transformers_without_the_padding(encoder):
    kind, folder, network, tokenizer = encoder
    source = text_source(str(folder))
    assert (source.kind, source.text_width, source.max_length) == (
        kind,
        WIDTH,
        77 if kind == "clip_hf" else 512,
    )
    text = source.open().encode_prompts(PROMPTS)
    wanted = padded(network, tokenizer, PROMPTS)
    assert text.lengths == tuple(map(len, wanted))
    torch.testing.assert_close(text.states, torch.cat(wanted), atol=1e-6, rtol=1e-6)


def test_a_layer_is_an_index_into_the_hidden_states(encoder):
    _, folder, network, tokenizer = encoder
    text = text_source(f"{folder}:-3").open().encode_prompts(PROMPTS)
    wanted = torch.cat(padded(network, tokenizer, PROMPTS, layer=-3))
    torch.testing.assert_close(text.states, wanted, atol=1e-6, rtol=1e-6)


def test_the_tokens_of_a_template_before_the_prompt_are_left_out(llm, tmp_path):
    folder, network, tokenizer = llm
    (tmp_path / "mine.toml").write_text(
        'layer = -2\ntemplate = "<|im_start|>describe the video {}<|im_end|>"'
    )
    text = text_source(f"{folder}:{tmp_path / 'mine.toml'}").open().encode_prompts(PROMPTS)
    texts = [f"<|im_start|>describe the video {prompt}<|im_end|>" for prompt in PROMPTS]
    crop = len(tokenizer("<|im_start|>describe the video ")["input_ids"])
    wanted = torch.cat(padded(network, tokenizer, texts, layer=-2, crop=crop))
    torch.testing.assert_close(text.states, wanted, atol=1e-6, rtol=1e-6)


def test_settings_of_published_models_have_the_templates_of_diffusers(llm):
    hunyuan = pytest.importorskip("diffusers.pipelines.hunyuan_video.pipeline_hunyuan_video")
    assert TEXT_SETTINGS["hunyuan-video"].template == hunyuan.DEFAULT_PROMPT_TEMPLATE["template"]
    source = text_source(f"{llm[0]}:hunyuan-video")
    assert source.settings.layer == -3
    text = source.open().encode_prompts(["a red fox"])
    end = llm[2]("a red fox<|eot_id|>", add_special_tokens=False)["input_ids"]
    assert text.lengths == (len(end),)


def test_a_long_prompt_is_cut_as_by_its_tokenizer_and_reported(encoder, monkeypatch):
    _, folder, _, tokenizer = encoder
    monkeypatch.setitem(TEXT_SETTINGS, "short", TextSettings(max_length=8))
    text = text_source(f"{folder}:short").open()
    prompt = "a red fox runs across the meadow in the snow"
    ids = tokenizer(prompt, truncation=True, max_length=8)["input_ids"]
    assert text.tokens(prompt) == (ids, 0)
    assert text.encode_prompts([prompt]).lengths == (8,)
    report = text.read_prompt(prompt)
    assert 3 <= report.num_read <= 7
    assert report.cut[-1] == "snow"
    assert text.read_prompt("a fox").text == ""


def test_a_model_folder_names_its_encoder_and_finds_it_elsewhere(encoder, tmp_path, monkeypatch):
    _, folder, *_ = encoder
    here = tmp_path / "here"
    shutil.copytree(folder, here)
    source = text_source(f"{here}:-2")
    model = tmp_path / "model"
    model.mkdir()
    save_text_encoder(model, source, torch.float32)
    assert find_text_encoder(model) == source
    assert [path.name for path in model.rglob("*") if path.is_file()] == ["config.json"]

    here.rename(tmp_path / "there")
    with pytest.raises(ModelError, match=f"put it there, or set the environment variable {ENVIRONMENT}"):
        find_text_encoder(model)
    monkeypatch.setenv(ENVIRONMENT, str(tmp_path / "there"))
    assert find_text_encoder(model).open().encode_prompts(PROMPTS).lengths

    (tmp_path / "there" / "README.md").write_text("another encoder")
    with pytest.raises(ModelError, match=r"is not the text encoder that .* was trained with: its"):
        find_text_encoder(model)


def test_a_tokenizer_may_be_in_the_folder_next_to_the_encoder(llm, tmp_path):
    shutil.copytree(llm[0], tmp_path / "text_encoder")
    (tmp_path / "tokenizer").mkdir()
    for file in (tmp_path / "text_encoder").glob("tokenizer*"):
        file.rename(tmp_path / "tokenizer" / file.name)
    states = [
        text_source(str(folder)).open().encode_prompts(PROMPTS).states
        for folder in (llm[0], tmp_path / "text_encoder")
    ]
    assert torch.equal(*states)


def test_a_folder_without_a_tensor_is_an_error(llm, tmp_path):
    from safetensors.torch import load_file, save_file

    shutil.copytree(llm[0], tmp_path / "llm")
    file = tmp_path / "llm" / "model.safetensors"
    state = load_file(file)
    state.pop("model.norm.weight")
    save_file(state, file, {"format": "pt"})
    with pytest.raises(ModelError, match=r"lacks 1 tensors of AutoModel, norm\.weight first"):
        text_source(str(tmp_path / "llm")).open().encode_prompts(["a fox"])


def test_what_is_no_text_encoder_is_refused_in_one_line(llm, tmp_path, monkeypatch):
    with pytest.raises(ModelError, match=r"it has no config\.json"):
        kind_of(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "bart", "is_encoder_decoder": true}')
    with pytest.raises(ModelError, match="is of type bart, which is no text encoder: use clip, t5"):
        text_source(str(tmp_path))
    with pytest.raises(ConfigError, match="has the layers 0 to 3, and -1 for the last: not 4"):
        text_source(f"{llm[0]}:4")
    with pytest.raises(UnknownName, match="hunyuan-video"):
        text_source(f"{llm[0]}:hunyuan")
    with pytest.raises(ConfigError, match=r"must contain \{\}, the place of the prompt"):
        TextSettings(template="describe")
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ConfigError, match="needs transformers: pip install"):
        text_source(str(llm[0]))
