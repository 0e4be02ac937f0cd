import pytest
import torch

from kinema.models.conditioning import TextStates

TEXT = TextStates(torch.arange(12.0).reshape(6, 2), (3, 0, 1, 2))


def test_split_and_cat_are_inverse():
    again = TextStates.cat(TEXT.split())
    assert torch.equal(again.states, TEXT.states)
    assert again.lengths == TEXT.lengths
    assert [len(prompt) for prompt in TEXT.split()] == [1, 1, 1, 1]


def test_prompts_can_be_repeated_and_reordered():
    prompts = TEXT.split()
    chosen = TextStates.cat([prompts[3], prompts[0], prompts[3]])
    assert chosen.lengths == (2, 3, 2)
    assert torch.equal(chosen.states, torch.cat([TEXT.states[4:], TEXT.states[:3], TEXT.states[4:]]))


@pytest.mark.parametrize("lengths", [(5,), (3, 4), (7, -1)])
def test_lengths_must_cover_the_states(lengths):
    with pytest.raises(ValueError, match="6 text states"):
        TextStates(TEXT.states, lengths)


def test_number_of_prompts_is_the_length():
    assert len(TEXT) == 4
    assert len(TEXT.to(TEXT.states.device)) == 4
