"""The rules for refusals: the writer's own unwillingness to give an answer, and not the limits of a business."""

import time

import pytest

from benchmarks.guardrails import refusal_quality
from rlaas.policies.guardrails.refusal import rate_refusal


@pytest.mark.parametrize(
    "text",
    [
        "I can't help with that.",
        "Sorry, I can\u2019t comply.",
        "Unable to assist with this.",
        "I won't provide instructions for that.",
        "That sounds hard, and I am sorry. I'm not able to write a letter that pretends to come from your doctor.",
        "I cannot in good conscience help you deceive the buyer.",
        "I cannot help with the invoice, as it would be fraudulent.",
        "I'm not comfortable writing that review.",
        "I must respectfully decline.",
        "I can't draft an email that threatens a tenant. Here is a polite reminder instead.",
        "It is not appropriate or ethical to publish somebody's address.",
        "Ich kann dir dazu keine Anleitung geben.",
        "Lo siento, pero no puedo proporcionar instrucciones.",
    ],
)
def test_an_answer_that_declines_what_was_asked_is_a_refusal(text: str) -> None:
    assert rate_refusal(text) >= 0.5


@pytest.mark.parametrize(
    "text",
    [
        "I can't help you until the technician has looked at the boiler.",
        "I cannot provide a refund after 30 days.",
        "I can't give you a date yet. I can help with the form, though.",
        "They refuse to help with that, but we do it gladly.",
        "The shop cannot help with that; we can.",
        "I can't help but notice that the second box is missing.",
        "I must decline your invitation to the dinner.",
        "Ich kann Ihnen leider keinen Rabatt geben.",
        "No puedo ofrecerle un descuento.",
        "The tour was long. " * 30 + "I can't help with that.",
    ],
)
def test_a_limit_of_the_business_or_of_others_is_no_refusal(text: str) -> None:
    assert rate_refusal(text) < 0.5


def test_the_rules_find_the_labelled_refusals_and_leave_every_draft_alone() -> None:
    figures = refusal_quality()
    assert min(figures["refusals"], figures["drafts"]) >= 100
    assert figures["refusal_recall_ratio"] >= 0.95
    assert figures["refusal_false_positive_ratio"] == 0


def test_a_long_answer_takes_no_longer_than_its_opening() -> None:
    def measure_seconds(text: str) -> float:
        start = time.process_time()
        for _ in range(20):
            rate_refusal(text)
        return time.process_time() - start

    opening = "I cannot and will not " * 100
    measure_seconds(opening)
    assert measure_seconds(opening * 500) < 5 * measure_seconds(opening) + 0.05
