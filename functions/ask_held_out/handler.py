"""Asks a learning run's three systems its held-out prompts, as many as it has time for; the state machine calls it
until all are answered.

In each call it assumes a role narrowed to what it may read, write and ask for that run: its own role may do nothing
else.
"""

import json
from collections.abc import Mapping

from aws_lambda_powertools.utilities.typing import LambdaContext

from rlaas.adapters.aws.held_out import ANSWER_S, HeldOutRun, open_session
from rlaas.evaluation.asking import HeldOutPlan, ask_remaining
from rlaas.runtime.environment import AskingEnvironment
from rlaas.runtime.log import logger
from rlaas.runtime.stage import current_stage

CONCURRENCY = 24
"""Requests at the same time; the server answers them in one batch."""
_NEEDED_MS = 1_000 * (ANSWER_S + 30)
"""Milliseconds that must be left to ask another prompt: for the longest answer, and to store the answers."""


def handler(event: Mapping[str, object], context: LambdaContext) -> dict[str, object]:
    """Ask the questions that have no answer; whether all have one now. Raises: `RlaasError`s by name, for Retry and
    Catch."""
    run = HeldOutPlan.model_validate_json(json.dumps(event))
    held_out = HeldOutRun(run, open_session(run, current_stage().settings(AskingEnvironment).asking_role_arn))
    progress = ask_remaining(
        held_out.prompts(),
        held_out.ask,
        held_out,
        concurrency=CONCURRENCY,
        time_is_left=lambda: context.get_remaining_time_in_millis() >= _NEEDED_MS,
    )
    logger.info("asked", answers=run.answers_uri, answered=progress.answered, questions=progress.questions)
    return {"done": progress.done, "answered": progress.answered, "questions": progress.questions}
