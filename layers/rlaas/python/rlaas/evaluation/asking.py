"""Ask the systems the held-out prompts, several at a time, while there is time. Answers are kept, so that no question
is asked again."""

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
"""The most held-out interactions that are judged: the first rows of the test split."""

Prefix = Annotated[str, Field(pattern=r"^s3://.+/$")]
"""A prefix of S3 objects that ends in a slash: without the slash, `v1` would match `v10` too."""
SystemQuestion = tuple[int, System]
"""The number of a row of the test split, from 0, and the system to ask."""
AskSystem = Callable[[System, HeldOutPrompt], str]
"""Raises: DependencyUnavailable without an answer, InvalidInput where the model refuses the prompt."""


class HeldOutPlan(WireModel, strict=False):
    """What to ask for one learning run, as the state machine passes it; not strict, because JSONata may write a whole
    number in another form.

    An answer has at most `max_tokens` tokens.
    """

    tenant_id: TenantId
    dataset_version: str
    dataset_uri: Prefix
    answers_uri: Prefix
    endpoint: str
    components: dict[System, str]
    max_tokens: int


class SystemAnswer(WireModel, hide_input_in_errors=True):
    """A system's answer to the prompt in a `row` (from 0) of the test split."""

    row: int
    interaction_id: str
    system: System
    text: str


class Answers(Protocol):
    """The answers of a run's systems so far."""

    def list_answered(self) -> Collection[SystemQuestion]:
        """The questions that need not be asked again."""
        ...

    def keep(self, answers: Sequence[SystemAnswer]) -> None:
        """Store more answers."""
        ...


@dataclass(frozen=True, slots=True)
class Progress:
    """How many of a run's questions have been answered."""

    answered: int
    questions: int

    @property
    def done(self) -> bool:
        """Whether all questions have been answered."""
        return self.answered == self.questions


def ask_remaining(
    prompts: Sequence[HeldOutPrompt], ask: AskSystem, answers: Answers, *, concurrency: int, time_is_left: Callable[[], bool]
) -> Progress:
    """Ask every system every prompt that it has not answered, row by row and `concurrency` at a time, while
    `time_is_left`.

    After the first failure nothing more is asked; the questions under way are finished, the new answers are kept, and
    the failure is raised.

    Raises: DependencyUnavailable when an answer did not come, or when there was time for none; what else `ask` raises.
    """
    questions: list[SystemQuestion] = [(row, system) for row in range(len(prompts)) for system in SYSTEMS]
    before = answers.list_answered()
    left = [question for question in questions if question not in before]
    new: list[SystemAnswer] = []
    try:
        for (row, system), text in _ask_concurrently(
            left, lambda question: ask(question[1], prompts[question[0]]), concurrency, time_is_left
        ):
            new.append(SystemAnswer(row=row, interaction_id=prompts[row].interaction_id, system=system, text=text))
    except DependencyUnavailable as failure:
        raise DependencyUnavailable(failure.detail) from failure  # by this name the state machine tries again
    finally:
        if new:
            answers.keep(new)
    if left and not new:
        raise DependencyUnavailable(f"{len(left):,} held-out answers are missing, and there was time for none of them")
    return Progress(len(questions) - len(left) + len(new), len(questions))


def _ask_concurrently(
    left: Sequence[SystemQuestion], ask: Callable[[SystemQuestion], str], concurrency: int, time_is_left: Callable[[], bool]
) -> Iterator[tuple[SystemQuestion, str]]:
    """Yield each question with its answer as it arrives, `concurrency` at a time. Raises the first failure at the
    end."""
    waiting = iter(left)
    running: dict[Future[str], SystemQuestion] = {}
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


def explain_no_prompts(dataset_version: str) -> str:
    """The error message for a dataset without held-out interactions."""
    return f"dataset {dataset_version} has no held-out interactions: collect more threads or raise the run's test_share"
