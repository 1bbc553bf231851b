from itertools import islice

from local.office.templates import HELD_OUT, TRAIN, iterate_cases, week


def test_train_and_held_out_issues_share_neither_emails_nor_answers() -> None:
    for field in ("name", "email", "answer"):
        train, held_out = ({getattr(issue, field) for issue in split} for split in (TRAIN, HELD_OUT))
        assert len(train) == len(TRAIN)
        assert len(held_out) == len(HELD_OUT)
        assert not train & held_out


def test_there_are_enough_issues_and_every_answer_fits_a_short_draft() -> None:
    assert len(TRAIN) >= 36
    assert len(HELD_OUT) >= 12
    assert all(len(issue.answer.split()) <= 30 for issue in (*TRAIN, *HELD_OUT))


def test_the_same_seed_gives_the_same_mail_and_another_seed_another() -> None:
    assert week(3, 20, 10) == week(3, 20, 10)
    assert week(3, 20, 10) != week(4, 20, 10)


def test_every_issue_comes_once_before_any_comes_again() -> None:
    names = [case.issue for case in islice(iterate_cases("train", 1), 2 * len(TRAIN))]
    assert set(names[: len(TRAIN)]) == set(names[len(TRAIN) :]) == {issue.name for issue in TRAIN}


def test_all_slots_are_filled_and_the_service_never_sees_the_answer() -> None:
    for case in week(5, len(TRAIN), len(HELD_OUT)):
        assert "{" not in case.email + case.answer
        assert set(case.inputs) == {"name", "email"}
        assert case.answer not in " ".join(case.inputs.values())
