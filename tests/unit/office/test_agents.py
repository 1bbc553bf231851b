import pytest

from local.office.agents import OFFICE, Agent, is_house_style, list_usable_sentences, react, write_in_house_style
from local.office.templates import Case, week

CAREFUL = Agent("careful", patience=0.4)
CASE = Case(
    issue="export-csv",
    split="train",
    first_name="Olga",
    full_name="Olga Novak",
    email="How do I export my data as CSV?",
    answer="Open Settings, choose Data, and click Export as CSV. The file is emailed to you within a few minutes.",
)


def test_a_right_answer_in_the_wrong_style_keeps_its_own_words() -> None:
    words = "You find it in Settings under Data, just click the button. We emailed the file in minutes."
    reaction = react(CAREFUL, CASE, f"Dear Olga Novak,\n\n{words}\n\nSincerely,\n[Your Name]", seed=1)
    assert reaction.final_text == write_in_house_style("Olga", words)
    assert reaction.action == "sent"


def test_an_echo_of_the_question_is_no_answer() -> None:
    assert list_usable_sentences(CASE, "Dear Olga,\n\nI see that you want to export your data as CSV. We export data as CSV.") == ()


def test_a_useless_draft_is_discarded_and_the_right_answer_sent() -> None:
    reaction = react(CAREFUL, CASE, "I am writing to you as an AI assistant about the weather in many different places.", seed=1)
    assert reaction.final_text == write_in_house_style("Olga", CASE.answer)
    assert reaction.action == "discarded"


def test_a_draft_in_house_style_with_the_right_answer_is_sent_as_it_is() -> None:
    draft = write_in_house_style("Olga", CASE.answer)
    reaction = react(CAREFUL, CASE, draft, seed=1)
    assert (reaction.final_text, reaction.action) == (draft, "sent")


def test_a_sentence_with_a_blank_to_fill_or_a_missing_number_is_not_kept() -> None:
    order = Case("o", "train", "Ivy", "Ivy Lee", "Where is my parcel?", "It arrives within 3 days, the courier calls before.")
    assert list_usable_sentences(order, "It arrives within [number] days, the courier calls before.") == ()
    assert list_usable_sentences(order, "It arrives within 9 days, the courier calls before.") == ()
    assert list_usable_sentences(order, "It arrives within 3 days, the courier calls before.") != ()


def test_a_sentence_cut_off_at_the_token_limit_is_not_kept() -> None:
    assert list_usable_sentences(CASE, "Open Settings, choose Data, and click Export as CSV. The file is emailed to") == (
        "Open Settings, choose Data, and click Export as CSV.",
    )


@pytest.mark.parametrize("draft", ["", "   \n", "Dear"])
def test_an_empty_draft_is_discarded_even_by_an_agent_who_never_reads(draft: str) -> None:
    blind = Agent("blind", patience=0.4, unread_rate=1.0 if not draft.strip() else 0.0)
    assert react(blind, CASE, draft, seed=1).action == "discarded"


def test_the_same_agent_does_the_same_thing_again() -> None:
    for agent in OFFICE:
        assert react(agent, CASE, "A draft.", seed=3) == react(agent, CASE, "A draft.", seed=3)


def test_noise_comes_at_its_stated_rate() -> None:
    """1,000 cases at rate 0.2: the count is within four standard errors (51) of 200."""
    unread = Agent("unread", patience=0.4, unread_rate=0.2)
    sent_as_is = sum(react(unread, case, f"Draft {n}.", seed=1).final_text == f"Draft {n}." for n, case in enumerate(week(1, 1000, 0)))
    assert abs(sent_as_is - 200) <= 51


def test_careful_agents_always_write_house_style_and_a_sloppy_one_mostly() -> None:
    mail = week(2, 200, 0)
    assert all(is_house_style(case.first_name, react(CAREFUL, case, "No.", seed=1).final_text) for case in mail)
    sloppy = next(agent for agent in OFFICE if agent.off_style_rate > 0.1)
    in_style = sum(is_house_style(case.first_name, react(sloppy, case, "No.", seed=1).final_text) for case in mail)
    assert 100 < in_style < 200


def test_patience_varies_with_mood_and_a_closer_draft_is_never_less_likely_to_be_used() -> None:
    moody = Agent("moody", patience=0.4, mood=0.1)
    assert moody.chance_to_use(0.4) == pytest.approx(0.5)
    assert moody.chance_to_use(0.5) == pytest.approx(0.8413, abs=1e-4)
    chances = [moody.chance_to_use(n / 20) for n in range(21)]
    assert chances == sorted(chances)
    assert [CAREFUL.chance_to_use(similarity) for similarity in (0.39, 0.4)] == [0.0, 1.0]
