"""Answers of several systems to the same held-out prompts, compared thread by thread with the text that people sent."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Literal

from rlaas.evaluation.intervals import Interval, bootstrap_mean, bound_proportion, count_effective_trials, linearize_by_cluster
from rlaas.preferences.words import count_words
from rlaas.rewards.similarity import compute_edit_similarity
from rlaas.voices import MANY
from rlaas.wire import WireModel

System = Literal["baseline", "candidate", "sft_only"]
SYSTEMS: tuple[System, ...] = ("baseline", "candidate", "sft_only")
TIE = 1e-9
"""Similarities closer than this are a tie."""


@dataclass(frozen=True, slots=True)
class HeldOutCase:
    """One held-out interaction: the text that was sent in the end, and each system's answer to the same prompt.
    `person` is the person whose interaction it is."""

    interaction_id: str
    thread: str
    final_text: str
    answers: Mapping[System, str]
    person: str = ""


class ScoredCase(WireModel):
    """A held-out interaction with the edit similarity in [0, 1] of each system's answer to the final text."""

    interaction_id: str
    thread: str
    person: str = ""
    edit_similarity: dict[System, float]


class Figure(WireModel):
    """A mean over the threads with its 95% interval, a BCa bootstrap over people where there are many, else over
    threads."""

    mean: float
    ci: tuple[float, float]


class SystemFigures(WireModel):
    """The figures of one system's answers: `words` is their mean number of words, `empty_share` the share in [0, 1] of
    empty ones. `component` is the inference component that answered."""

    component: str
    edit_similarity: Figure
    words: Figure
    empty_share: float


class Comparison(WireModel):
    """A first system against a second on the same threads.

    `win_rate` is (wins + ties / 2) / threads, its 95% interval Wilson's, which ties make wider than needed (see
    `intervals.bound_proportion`). `difference` is of the edit similarities, paired by thread. Threads of one person are
    alike: from `voices.MANY` people on, the intervals are for people drawn at random; with fewer, for more threads of
    the same people.
    """

    threads: int
    people: int = 0
    wins: int
    losses: int
    ties: int
    win_rate: float
    win_rate_ci: tuple[float, float]
    difference: Figure


def score_cases(cases: Iterable[HeldOutCase]) -> list[ScoredCase]:
    """Each answer's edit similarity to the final text."""
    return [
        ScoredCase(
            interaction_id=case.interaction_id,
            thread=case.thread,
            person=case.person,
            edit_similarity={
                system: compute_edit_similarity(text.strip(), case.final_text.strip()) for system, text in case.answers.items()
            },
        )
        for case in cases
    ]


def compute_figures(cases: Sequence[HeldOutCase], scored_cases: Sequence[ScoredCase], system: System, component: str) -> SystemFigures:
    """The figures of `system` on all threads, of which there is at least one."""
    words = [float(count_words(case.answers[system])) for case in cases]
    return SystemFigures(
        component=component,
        edit_similarity=_compute_figure(
            average_by_thread(scored_cases, lambda case: case.edit_similarity[system]), _list_people(scored_cases)
        ),
        words=_compute_figure(words, []),
        empty_share=sum(not case.answers[system].strip() for case in cases) / len(cases),
    )


def compare_systems(scored_cases: Sequence[ScoredCase], first: System, second: System) -> Comparison:
    """`first` against `second`. Each thread is one trial: its interactions are averaged, because they are not
    independent."""
    differences = average_by_thread(scored_cases, lambda case: case.edit_similarity[first] - case.edit_similarity[second])
    wins = sum(difference > TIE for difference in differences)
    losses = sum(difference < -TIE for difference in differences)
    ties = len(differences) - wins - losses
    people = _list_people(scored_cases)
    win_rate, trials = (wins + ties / 2) / len(differences), float(len(differences))
    if _are_many(people):
        trials = count_effective_trials([(difference > TIE) + (abs(difference) <= TIE) / 2 for difference in differences], people)
    interval = bound_proportion(win_rate * trials, trials)
    return Comparison(
        threads=len(differences),
        people=len(set(people)),
        wins=wins,
        losses=losses,
        ties=ties,
        win_rate=win_rate,
        win_rate_ci=(interval.low, interval.high),
        difference=_compute_figure(differences, people),
    )


def average_by_thread(scored_cases: Iterable[ScoredCase], value: Callable[[ScoredCase], float]) -> list[float]:
    """The mean of `value` in each thread, one number a thread, in order of first appearance."""
    threads: dict[str, list[float]] = {}
    for case in scored_cases:
        threads.setdefault(case.thread, []).append(value(case))
    return [fmean(values) for values in threads.values()]


def _list_people(scored_cases: Iterable[ScoredCase]) -> list[str]:
    """The person of each thread, in order of first appearance."""
    people: dict[str, str] = {}
    for case in scored_cases:
        people.setdefault(case.thread, case.person)
    return list(people.values())


def _are_many(people: Sequence[str]) -> bool:
    return len(set(people)) >= MANY


def _compute_figure(values: Sequence[float], people: Sequence[str]) -> Figure:
    samples = linearize_by_cluster(values, people) if _are_many(people) else values
    interval = bootstrap_mean(samples) if len(samples) > 1 else Interval(samples[0], samples[0])
    return Figure(mean=fmean(values), ci=(interval.low, interval.high))
