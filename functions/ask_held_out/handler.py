"""Asks a learning run's held-out prompts of its three systems, as many as it has time for; called again until all are
answered.

What it may read, write and ask it lends itself anew in each call, for the one run: its own role may do nothing else.
"""

import json
from collections.abc import Mapping

from aws_lambda_powertools.utilities.typing import LambdaContext

from rlaas.adapters.aws.held_out import ANSWER_S, HeldOutRun, session_of
from rlaas.evaluation.asking import AskedRun, ask_on
from rlaas.runtime.environment import AskingEnvironment
from rlaas.runtime.log import logger
from rlaas.runtime.stage import current_stage

CONCURRENCY = 24
"""Requests under way; the server answers them in one batch."""
_NEEDED_MS = 1_000 * (ANSWER_S + 30)
"""With less time left no other prompt is asked: an answer may take as long as it may, and what was answered has to be
stored."""


def handler(event: Mapping[str, object], context: LambdaContext) -> dict[str, object]:
    """Ask what has not been answered; whether all has been. Raises: `RlaasError`s by name, for Retry and Catch."""
    run = AskedRun.model_validate_json(json.dumps(event))
    held_out = HeldOutRun(run, session_of(run, current_stage().settings(AskingEnvironment).asking_role_arn))
    progress = ask_on(
        held_out.prompts(),
        held_out.ask,
        held_out,
        concurrency=CONCURRENCY,
        time_is_left=lambda: context.get_remaining_time_in_millis() >= _NEEDED_MS,
    )
    logger.info("asked", answers=run.answers_uri, answered=progress.answered, questions=progress.questions)
    return {"done": progress.done, "answered": progress.answered, "questions": progress.questions}
