"""Held-out prompts asked of the systems, as many at a time as there is time for; what was answered is kept and not
asked again."""

from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Annotated, Protocol

from pydantic import Field

from rlaas.errors import DependencyUnavailable
from rlaas.evaluation.comparison import SYSTEMS, System
from rlaas.ids import TenantId
from rlaas.preferences.dataset import HeldOutPrompt
from rlaas.wire import WireModel

MAX_INTERACTIONS = 2_000
"""Held-out interactions judged at most: the first rows of the test split."""

Prefix = Annotated[str, Field(pattern=r"^s3://.+/$")]
"""Of objects on S3, up to a slash: without one, v1 is v10 as well."""
Question = tuple[int, System]
"""A row of the test split, and who is asked."""
Ask = Callable[[System, HeldOutPrompt], str]
"""Raises: DependencyUnavailable without an answer, InvalidInput where the model refuses the prompt."""


class AskedRun(WireModel, strict=False):
    """What is asked for one learning run, as the state machine passes it: JSONata may turn a whole number into another
    form of it.

    An answer has at most `max_tokens`.
    """

    tenant_id: TenantId
    dataset_version: str
    dataset_uri: Prefix
    answers_uri: Prefix
    endpoint: str
    components: dict[System, str]
    max_tokens: int


class Answer(WireModel, hide_input_in_errors=True):
    """What a system answered to the prompt of a row of the test split."""

    row: int
    interaction_id: str
    system: System
    text: str


class Answers(Protocol):
    """What a run's systems have answered so far."""

    def answered(self) -> Collection[Question]:
        """The questions that need not be asked again."""
        ...

    def keep(self, answers: Sequence[Answer]) -> None:
        """Add to them."""
        ...


@dataclass(frozen=True, slots=True)
class Progress:
    """How many of a run's questions have been answered."""

    answered: int
    questions: int

    @property
    def done(self) -> bool:
        """Whether all of them have been."""
        return self.answered == self.questions


def ask_on(prompts: Sequence[HeldOutPrompt], ask: Ask, answers: Answers, *, concurrency: int, time_is_left: Callable[[], bool]) -> Progress:
    """Ask every system every prompt that it has not answered, row by row, until there is no time left to begin another
    one.

    The first failure ends it, when what was under way has ended and all that was answered is kept.

    Raises: DependencyUnavailable for an answer that did not come, or when there was time for none; what else `ask`
    raises.
    """
    questions: list[Question] = [(row, system) for row in range(len(prompts)) for system in SYSTEMS]
    before = answers.answered()
    left = [question for question in questions if question not in before]
    given: list[Answer] = []
    try:
        for (row, system), text in _asked(left, lambda question: ask(question[1], prompts[question[0]]), concurrency, time_is_left):
            given.append(Answer(row=row, interaction_id=prompts[row].interaction_id, system=system, text=text))
    except DependencyUnavailable as failure:
        raise DependencyUnavailable(failure.detail) from failure  # by the name that the state machine tries again
    finally:
        if given:
            answers.keep(given)
    if left and not given:
        raise DependencyUnavailable(f"{len(left):,} held-out answers are missing, and there was time for none of them")
    return Progress(len(questions) - len(left) + len(given), len(questions))


def _asked(
    left: Sequence[Question], ask: Callable[[Question], str], concurrency: int, time_is_left: Callable[[], bool]
) -> Iterator[tuple[Question, str]]:
    """Answers as they come, `concurrency` at a time. Raises the first failure last."""
    waiting = iter(left)
    running: dict[Future[str], Question] = {}
    failure: BaseException | None = None
    with ThreadPoolExecutor(concurrency) as pool:
        while True:
            while failure is None and len(running) < concurrency and time_is_left():
                question = next(waiting, None)
                if question is None:
                    break
                running[pool.submit(ask, question)] = question
            if not running:
                break
            for done in wait(running, return_when=FIRST_COMPLETED).done:
                question = running.pop(done)
                if (error := done.exception()) is None:
                    yield question, done.result()
                else:
                    failure = failure or error
    if failure is not None:
        raise failure


def no_prompts(dataset_version: str) -> str:
    """What is said of a dataset that nothing can be judged on."""
    return f"dataset {dataset_version} has no held-out interactions: collect more threads or raise the run's test_share"
