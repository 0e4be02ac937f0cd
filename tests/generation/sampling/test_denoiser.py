"""The denoiser: what it prepares once, several clips at once, and what it leaves as it was."""

from dataclasses import replace

import pytest
import torch
from tests.generation.recording import recorded, with_denoiser

from kinema.generation.request import Request, TimedPrompt

LONG = Request("a red fox runs", width=32, height=32, seconds=4.0, steps=1, window=9)
LATER = TimedPrompt(2.0, "the blue ball rolls")


@pytest.mark.parametrize(("prompts", "num_prepared"), [((), 3), ((LATER,), 6)])
def test_a_prompt_is_prepared_once_for_all_of_its_windows(pipeline, prompts, num_prepared):
    pipeline, backbone = recorded(pipeline)
    plan = pipeline.plan(replace(LONG, prompts=prompts))
    assert len(plan.windows) > 3
    pipeline.sample(plan)
    assert len(backbone.batches) == len(plan.windows)
    assert len(backbone.prepared) == num_prepared  # with the prompt, without it, and both


def test_a_batch_of_two_is_two_batches_of_one(pipeline):
    denoiser = pipeline.denoiser
    requests = [
        Request("a red fox runs", "blue ball", guidance=2.0),
        Request("the blue ball rolls", guidance=5.0),
    ]
    plans = [pipeline.plan(request) for request in requests]
    x, t = torch.randn(2, 6, 3, 4, 4), torch.rand(2, 1, 3, 4, 4)
    with torch.inference_mode():
        together = denoiser.for_run(plans, [[], []]).network([plan.request.prompt for plan in plans])(x, t)
        apart = [
            denoiser.for_run([plan], [[]]).network([plan.request.prompt])(x[i : i + 1], t[i : i + 1])
            for i, plan in enumerate(plans)
        ]
    torch.testing.assert_close(together, torch.cat(apart), atol=1e-4, rtol=1e-4)
    assert not torch.allclose(together[0], together[1], atol=1e-2)


def test_precision_applies_to_the_networks_alone(pipeline):
    pipeline = with_denoiser(pipeline, precision="bf16")
    plan = pipeline.plan(Request("a red fox runs"))
    with torch.inference_mode():
        network = pipeline.denoiser.for_run([plan], [[]]).network([plan.request.prompt])
        assert not torch.is_autocast_enabled("cpu")
        x0 = network(torch.randn(1, 6, 2, 4, 4), torch.rand(1, 1, 2, 4, 4))
    assert not torch.is_autocast_enabled("cpu")
    assert x0.dtype == torch.float32
