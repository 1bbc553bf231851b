"""The splits of a dataset."""

from collections import Counter
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from rlaas.chat import Message
from rlaas.preferences.dataset import (
    SPLITS,
    DatasetManifest,
    SplitFile,
    SplitShares,
    explain_shortfall,
    keep_within_shares,
    select_demonstrations,
    split_pairs,
)
from rlaas.preferences.left_out import ADVICE, DropReason
from rlaas.preferences.pairs import Pair
from rlaas.voices import FREE, LEAST_OF_PAIRS, bound_share


def make_pair(number: int, thread: str, *, held_out: bool = False, unchanged: bool = False) -> Pair:
    return Pair(
        prompt=(Message(role="user", content="?"),),
        chosen="The text that was sent.",
        rejected="The text that was sent." if unchanged else "The draft.",
        interaction_id=f"int_{number}",
        output_id=f"out_{number}",
        feedback_ids=(),
        thread=thread,
        policy_id=None,
        occurred_at="2026-05-04T09:00:00+00:00",
        discarded=False,
        held_out=held_out,
    )


@given(st.lists(st.tuples(st.sampled_from("abcdefghij"), st.booleans()), max_size=60), st.floats(0, 0.4), st.floats(0, 0.4))
def test_a_thread_is_in_one_split_only_and_so_is_every_pair(rows: list[tuple[str, bool]], test: float, validation: float) -> None:
    pairs = [make_pair(n, thread, held_out=held_out) for n, (thread, held_out) in enumerate(rows)]
    sides = split_pairs(pairs, SplitShares(test=test, validation=validation), salt="s")
    threads = [{pair.thread for pair in side} for side in sides.values()]
    assert sum(len(side) for side in threads) == len(set().union(*threads))
    assert sorted(pair.output_id for side in sides.values() for pair in side) == sorted(pair.output_id for pair in pairs)
    held_out = {thread for thread, is_held_out in rows if is_held_out}
    assert held_out <= {pair.thread for pair in sides["test"]}


def test_shares_are_kept_over_many_threads() -> None:
    sides = split_pairs([make_pair(n, f"t{n}") for n in range(4000)], SplitShares(test=0.1, validation=0.2), salt="s")
    assert abs(len(sides["test"]) / 4000 - 0.1) < 0.02
    assert abs(len(sides["validation"]) / 4000 - 0.2) < 0.02


def test_a_thread_stays_where_it_was_when_the_dataset_grows() -> None:
    small = split_pairs([make_pair(n, f"t{n}") for n in range(50)], SplitShares(), salt="s")
    large = split_pairs([make_pair(n, f"t{n}") for n in range(500)], SplitShares(), salt="s")
    for split in small:
        assert {pair.thread for pair in small[split]} <= {pair.thread for pair in large[split]}


def test_drafts_sent_unchanged_are_in_the_test_split_only() -> None:
    pairs = [make_pair(n, f"t{n}", unchanged=True, held_out=n % 2 == 0) for n in range(40)]
    sides = split_pairs(pairs, SplitShares(test=0, validation=0.2), salt="s")
    assert {split: len(side) for split, side in sides.items()} == {"train": 0, "validation": 0, "test": 20}


def test_a_text_sent_as_it_was_is_a_demonstration_unless_the_skills_own_policy_wrote_it_or_its_thread_is_held_out() -> None:
    ours = replace(make_pair(1, "t1", unchanged=True), policy_id="mail@v1")
    thrown_away = replace(make_pair(2, "t2", unchanged=True), discarded=True)
    held_out = make_pair(3, "t3", unchanged=True, held_out=True)
    others = make_pair(4, "t4", unchanged=True)
    pairs = [ours, thrown_away, held_out, others, make_pair(5, "t5")]
    assert select_demonstrations(pairs, SplitShares(validation=0, test=0), salt="s") == [others]
    assert select_demonstrations(pairs, SplitShares(validation=0, test=0.999), salt="s") == []


def make_pairs(person: str, count: int, *, threads: int = 10**6) -> list[Pair]:
    pairs_of_one = [replace(make_pair(n, f"{person}-{n % threads}"), person=person, output_id=f"{person}-{n}") for n in range(count)]
    return [replace(pair, chosen=f"What {pair.output_id} sent.") for pair in pairs_of_one]


@given(st.lists(st.integers(1, 80), min_size=1, max_size=30))
def test_nobody_has_more_than_their_share_of_a_dataset_and_the_order_stays(counts: list[int]) -> None:
    pairs = [pair for place, count in enumerate(counts) for pair in make_pairs(f"p{place}", count)]
    result = keep_within_shares(pairs)
    people = Counter(pair.person for pair in result)
    assert max(people.values()) <= max(FREE, bound_share(len(counts), least=LEAST_OF_PAIRS) * len(result) + 1)
    assert set(people) == {f"p{place}" for place in range(len(counts))}
    assert result == [pair for pair in pairs if pair in result]


def test_one_pair_more_of_somebody_else_changes_little_and_the_same_pairs_are_kept_again() -> None:
    pairs = [pair for place in range(40) for pair in make_pairs(f"p{place}", 5)] + make_pairs("again", 500)
    result = keep_within_shares(pairs)
    assert set(map(id, result)) == set(map(id, keep_within_shares(pairs)))
    assert len(set(result) & set(keep_within_shares(pairs[1:]))) >= len(result) - 2
    assert sum(pair.person == "again" for pair in result) == 22


def test_a_person_with_too_many_pairs_keeps_some_of_each_thread() -> None:
    pairs = (
        [pair for place in range(40) for pair in make_pairs(f"p{place}", 5)]
        + make_pairs("again", 400, threads=20)
        + make_pairs("again", 400, threads=1)
    )
    counts = Counter(pair.thread for pair in keep_within_shares(pairs) if pair.person == "again")
    assert len(counts) == 20
    assert max(counts.values()) == 2


def test_a_team_of_three_loses_none_of_its_pairs() -> None:
    pairs = make_pairs("ada", 60) + make_pairs("bo", 30) + make_pairs("cy", 10)
    assert keep_within_shares(pairs) == pairs


def make_manifest(dropped: dict[DropReason, int], *, train: int, outputs: int) -> DatasetManifest:
    return DatasetManifest(
        tenant_id="acme",
        skill="mail",
        version="v1",
        created_at="2026-05-04T09:00:00.000000Z",
        splits={split: SplitFile(pairs=train if split == "train" else 0, threads=0, sha256="0" * 64) for split in SPLITS},
        outputs=outputs,
        dropped=dropped,
        min_pairs=8,
        discarded_drafts=0,
        events=0,
        events_since=None,
        events_until=None,
        events_sha256="0" * 64,
        policies=(),
        columns=(),
    )


def test_too_few_pairs_are_explained_by_the_reasons_of_dropped_outputs_and_what_would_change_them() -> None:
    reason = explain_shortfall(make_manifest({"no_prompt": 1200, "empty": 3}, train=2, outputs=1205)) or ""
    assert reason.startswith("2 training pairs of 1,205 outputs, at least 8 are needed")
    assert f"1,200 no_prompt ({ADVICE['no_prompt']}); 3 empty ({ADVICE['empty']})" in reason
    assert "There are no outputs at all" in (explain_shortfall(make_manifest({}, train=0, outputs=0)) or "")
    assert explain_shortfall(make_manifest({"empty": 3}, train=8, outputs=11)) is None


def test_too_few_pairs_for_every_reason_at_once_still_count_each_in_a_thousand_characters() -> None:
    dropped = {reason: 10**9 + n for n, reason in enumerate(ADVICE)}
    text = explain_shortfall(make_manifest(dropped, train=0, outputs=10**11)) or ""
    assert len(text) <= 1000
    assert all(f"{count:,} {reason}" in text for reason, count in dropped.items())
    assert ADVICE["blocked"] in text  # the most frequent is explained
