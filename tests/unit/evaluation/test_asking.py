"""Asking held-out prompts: what is asked, what is kept, and how it ends."""

from collections.abc import Callable
from itertools import count

import pytest

from rlaas.chat import BackendFailed, Message
from rlaas.errors import DependencyUnavailable, InvalidInput
from rlaas.evaluation.asking import Progress, ask_remaining
from rlaas.evaluation.comparison import SYSTEMS, System
from rlaas.preferences.dataset import HeldOutPrompt
from tests.fakes.answers import MemoryAnswers

PROMPTS = [HeldOutPrompt(interaction_id=f"int_{row}", prompt=(Message(role="user", content=f"Where is {row}?"),)) for row in range(5)]
EVERY = [(row, system) for row in range(5) for system in SYSTEMS]


class Systems:
    """Systems that answer; some prompts of some of them fail."""

    def __init__(self, **failures: Exception) -> None:
        self.failures = failures
        self.questions: list[tuple[str, System]] = []

    def __call__(self, system: System, prompt: HeldOutPrompt) -> str:
        self.questions.append((prompt.interaction_id, system))
        if (failure := self.failures.get(f"{system}_{prompt.interaction_id}")) is not None:
            raise failure
        return f"{system} on {prompt.prompt[-1].content}"


def time_for(questions: int) -> Callable[[], bool]:
    """Time for as many questions, asked one at a time."""
    questions_begun = count()
    return lambda: next(questions_begun) < questions


def ask(systems: Systems, answers: MemoryAnswers, *, concurrency: int = 1, time: Callable[[], bool] = lambda: True) -> Progress:
    return ask_remaining(PROMPTS, systems, answers, concurrency=concurrency, time_is_left=time)


@pytest.mark.parametrize("concurrency", [1, 4, 100])
def test_every_system_is_asked_every_prompt_once(concurrency: int) -> None:
    systems, answers = Systems(), MemoryAnswers()
    progress = ask(systems, answers, concurrency=concurrency)
    assert (progress, progress.done) == (Progress(15, 15), True)
    assert sorted(systems.questions) == sorted((f"int_{row}", system) for row, system in EVERY)
    assert {(answer.row, answer.system): answer.text for answer in answers.entries} == {
        (row, system): f"{system} on Where is {row}?" for row, system in EVERY
    }
    assert {answer.interaction_id for answer in answers.entries if answer.row == 3} == {"int_3"}


def test_what_was_answered_before_is_not_asked_again() -> None:
    systems, answers = Systems(), MemoryAnswers()
    rounds = [ask(systems, answers, time=time_for(4)) for _ in range(4)]
    assert [progress.answered for progress in rounds] == [4, 8, 12, 15]
    assert [progress.done for progress in rounds] == [False, False, False, True]
    assert systems.questions == [(f"int_{row}", system) for row, system in EVERY]  # row by row
    assert ask(systems, answers) == Progress(15, 15)
    assert len(systems.questions) == len(answers.entries) == 15


@pytest.mark.parametrize("concurrency", [1, 3])
def test_an_answer_that_does_not_come_ends_it_with_its_reason_and_what_came_is_kept(concurrency: int) -> None:
    answers = MemoryAnswers()
    systems = Systems(candidate_int_2=BackendFailed("the model endpoint answered ModelError"))
    with pytest.raises(DependencyUnavailable, match=r"^the model endpoint answered ModelError$") as failed:
        ask(systems, answers, concurrency=concurrency)
    assert type(failed.value) is DependencyUnavailable  # by this name the state machine tries again
    assert len(systems.questions) <= 7 + concurrency
    assert {(answer.row, answer.system) for answer in answers.entries} >= set(EVERY[:7])
    assert ask(Systems(), answers).done


def test_a_prompt_that_a_model_refuses_ends_it_for_good() -> None:
    answers = MemoryAnswers()
    with pytest.raises(InvalidInput, match="too long"):
        ask(Systems(baseline_int_0=InvalidInput("the prompt is too long")), answers)
    assert answers.entries == []


def test_a_call_in_which_nothing_is_answered_fails() -> None:
    answers = MemoryAnswers()
    ask(Systems(), answers, time=time_for(6))
    with pytest.raises(DependencyUnavailable, match="9 held-out answers are missing, and there was time for none"):
        ask(Systems(), answers, time=lambda: False)
