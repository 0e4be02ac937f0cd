"""Folders of tiny text encoders with random weights, in the layout of transformers."""

from pathlib import Path
from typing import Any

import torch

WORDS = "a red fox runs across the meadow in snow blue ball rolls slowly describe video"
MARKS = ("<pad>", "<s>", "</s>", "<|im_start|>", "<|im_end|>")
WIDTH = 16


def words_tokenizer(template):
    """A byte-level tokenizer; `template` puts `<s>` and `</s>` around a text, as in "<s> $A"."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    fast = Tokenizer(models.BPE())
    fast.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    fast.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        special_tokens=list(MARKS), initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    fast.train_from_iterator([WORDS] * 4, trainer)
    marks = [(mark, fast.token_to_id(mark)) for mark in ("<s>", "</s>")]
    fast.post_processor = processors.TemplateProcessing(single=template, special_tokens=marks)
    return PreTrainedTokenizerFast(
        tokenizer_object=fast, pad_token="<pad>", bos_token="<s>", eos_token="</s>", padding_side="right"
    )


def save_text_encoder_folder(folder: Path, kind: str):
    """(network, tokenizer) of transformers, which are also saved in `folder`."""
    import transformers as hf

    template = {"llm": "<s> $A", "clip_hf": "<s> $A </s>"}.get(kind, "$A </s>")
    tokenizer = words_tokenizer(template)
    size = len(tokenizer)
    sizes: dict[str, Any] = {"num_attention_heads": 2, "num_hidden_layers": 3, "hidden_size": WIDTH}
    model: Any
    torch.manual_seed(0)
    if kind in ("t5", "umt5"):
        config, network = {
            "t5": (hf.T5Config, hf.T5EncoderModel),
            "umt5": (hf.UMT5Config, hf.UMT5EncoderModel),
        }[kind]
        model = network(config(vocab_size=size, d_model=WIDTH, d_kv=8, d_ff=32, num_layers=3, num_heads=2))
    elif kind == "clip_hf":
        model = hf.CLIPTextModel(hf.CLIPTextConfig(vocab_size=size, intermediate_size=32, **sizes))
    else:
        model = hf.LlamaForCausalLM(
            hf.LlamaConfig(vocab_size=size, intermediate_size=32, num_key_value_heads=1, **sizes)
        )
    model.eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return model.model if kind == "llm" else model, tokenizer
