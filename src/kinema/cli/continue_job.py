"""Finishes a run that was stopped, or makes a draft again with more steps."""

import argparse
from pathlib import Path

from kinema.cli.options import add_output, check_output, finish, load_model, watching


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("job", type=Path, metavar="JOB_DIR", help="the folder that --job named")
    add_output(parser)
    parser.add_argument(
        "--steps",
        type=int,
        metavar="N",
        help="begin again from the same noise with this many steps: finish a draft",
    )
    parser.add_argument(
        "--model", metavar="DIR", help="where the job's model lies now, when it has been moved"
    )


def run(arguments: argparse.Namespace) -> int:
    from dataclasses import replace

    from kinema.generation.job import Job

    job = Job(arguments.job)
    request = job.request()
    pipeline = load_model(arguments, arguments.model or request.model, request)
    check_output(arguments, pipeline.plan(request))
    if arguments.steps is not None and arguments.steps != request.steps:
        inputs = job.inputs(request)
        job.save_request(replace(request, steps=arguments.steps), inputs)
    print(pipeline.plan(job.request()).text)
    with watching(arguments, pipeline) as on_step:
        result = pipeline.continue_job(arguments.job, path=arguments.out, on_step=on_step)
    finish(arguments, result)
    return 0
