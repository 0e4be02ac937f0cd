"""Expanders that run a network, and the choice of an expander."""

import pytest
import torch

from kinema.checkpoints.expanders import CausalLMExpander, KinemaExpander, load_expander
from kinema.errors import ConfigError, ModelError
from kinema.prompts.expansion import ChatExpander, expand


def test_settings_of_an_endpoint_come_from_a_file(tmp_path):
    (tmp_path / "chat.toml").write_text('url = "http://localhost:1/v1"\nmodel = "m"\nretries = 0\n')
    expander = load_expander(str(tmp_path / "chat.toml"))
    assert isinstance(expander, ChatExpander)
    assert (expander.endpoint.model, expander.endpoint.retries) == ("m", 0)
    (tmp_path / "wrong.toml").write_text('url = "http://localhost:1/v1"\nmodell = "m"\n')
    with pytest.raises(ConfigError, match="did you mean 'model'"):
        load_expander(str(tmp_path / "wrong.toml"))
    with pytest.raises(ModelError, match="is not an expander"):
        load_expander(str(tmp_path / "nowhere"))


def test_a_causal_model_of_transformers_expands(tmp_path):
    transformers = pytest.importorskip("transformers")
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = Tokenizer(
        models.WordLevel({"<unk>": 0, "</s>": 1, "a": 2, "dog": 3, "runs": 4, "park": 5}, unk_token="<unk>")
    )
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=words, unk_token="<unk>", eos_token="</s>"
    ).save_pretrained(tmp_path)
    sizes = {
        "vocab_size": 6,
        "n_positions": 512,
        "n_embd": 8,
        "n_layer": 1,
        "n_head": 1,
        "eos_token_id": 1,
        "bos_token_id": 1,
    }
    model = transformers.GPT2LMHeadModel(transformers.GPT2Config(**sizes))
    with torch.no_grad():  # whatever it is asked, it says "park"
        model.transformer.wte.weight[5] = 1.0
        model.transformer.ln_f.bias[:] = 100.0
    model.save_pretrained(tmp_path)
    expander = load_expander(str(tmp_path))
    assert isinstance(expander, CausalLMExpander)
    done = expand("a dog runs", expander)
    assert done.prompt.startswith("a dog runs. park park")
    assert done.expander == f"{tmp_path.name} (transformers)"


def test_a_folder_without_a_language_model_is_a_one_line_error(tmp_path):
    pytest.importorskip("transformers")
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    with pytest.raises(ModelError, match="cannot be loaded as a causal language model"):
        load_expander(str(tmp_path))


def test_the_shipped_expander_keeps_unknown_words_and_adds_nothing_negated():
    expander = KinemaExpander()
    for seed in range(6):
        done = expand('three quokkas walk, no snow, "Ada 3"', expander, seed=seed)
        assert not done.repaired
        assert all(part in done.prompt for part in ("three quokkas walk", ", no snow", '"Ada 3"'))
        assert done.prompt.count("snow") == 1
