"""Which side a pair is on."""

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
    shortfall,
    split_pairs,
    training_demonstrations,
    within_shares,
)
from rlaas.preferences.left_out import ADVICE, DropReason
from rlaas.preferences.pairs import Pair
from rlaas.voices import FREE, LEAST_OF_PAIRS, most_share


def pair(number: int, thread: str, *, held_out: bool = False, unchanged: bool = False) -> Pair:
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
def test_a_thread_is_on_one_side_only_and_every_pair_on_one(rows: list[tuple[str, bool]], test: float, validation: float) -> None:
    pairs = [pair(n, thread, held_out=held) for n, (thread, held) in enumerate(rows)]
    sides = split_pairs(pairs, SplitShares(test=test, validation=validation), salt="s")
    threads = [{made.thread for made in side} for side in sides.values()]
    assert sum(len(found) for found in threads) == len(set().union(*threads))
    assert sorted(made.output_id for side in sides.values() for made in side) == sorted(made.output_id for made in pairs)
    held = {thread for thread, is_held in rows if is_held}
    assert held <= {made.thread for made in sides["test"]}


def test_shares_are_kept_over_many_threads() -> None:
    sides = split_pairs([pair(n, f"t{n}") for n in range(4000)], SplitShares(test=0.1, validation=0.2), salt="s")
    assert abs(len(sides["test"]) / 4000 - 0.1) < 0.02
    assert abs(len(sides["validation"]) / 4000 - 0.2) < 0.02


def test_a_thread_stays_where_it_was_when_the_dataset_grows() -> None:
    small = split_pairs([pair(n, f"t{n}") for n in range(50)], SplitShares(), salt="s")
    large = split_pairs([pair(n, f"t{n}") for n in range(500)], SplitShares(), salt="s")
    for split in small:
        assert {made.thread for made in small[split]} <= {made.thread for made in large[split]}


def test_drafts_sent_unchanged_are_judged_on_and_not_trained_on() -> None:
    pairs = [pair(n, f"t{n}", unchanged=True, held_out=n % 2 == 0) for n in range(40)]
    sides = split_pairs(pairs, SplitShares(test=0, validation=0.2), salt="s")
    assert {split: len(side) for split, side in sides.items()} == {"train": 0, "validation": 0, "test": 20}


def test_a_text_sent_as_it_was_demonstrates_unless_the_skills_own_policy_wrote_it_or_its_thread_is_judged_on() -> None:
    ours = replace(pair(1, "t1", unchanged=True), policy_id="mail@v1")
    thrown_away = replace(pair(2, "t2", unchanged=True), discarded=True)
    judged = pair(3, "t3", unchanged=True, held_out=True)
    others = pair(4, "t4", unchanged=True)
    pairs = [ours, thrown_away, judged, others, pair(5, "t5")]
    assert training_demonstrations(pairs, SplitShares(validation=0, test=0), salt="s") == [others]
    assert training_demonstrations(pairs, SplitShares(validation=0, test=0.999), salt="s") == []


def of(person: str, pairs: int, *, threads: int = 10**6) -> list[Pair]:
    made = [replace(pair(n, f"{person}-{n % threads}"), person=person, output_id=f"{person}-{n}") for n in range(pairs)]
    return [replace(one, chosen=f"What {one.output_id} sent.") for one in made]


@given(st.lists(st.integers(1, 80), min_size=1, max_size=30))
def test_nobody_makes_more_than_his_share_of_a_dataset_and_the_order_stays(counts: list[int]) -> None:
    pairs = [made for place, count in enumerate(counts) for made in of(f"p{place}", count)]
    kept = within_shares(pairs)
    people = Counter(made.person for made in kept)
    assert max(people.values()) <= max(FREE, most_share(len(counts), least=LEAST_OF_PAIRS) * len(kept) + 1)
    assert set(people) == {f"p{place}" for place in range(len(counts))}
    assert kept == [made for made in pairs if made in kept]


def test_a_pair_more_or_less_of_somebody_else_changes_little_and_the_same_pairs_are_kept_again() -> None:
    pairs = [made for place in range(40) for made in of(f"p{place}", 5)] + of("again", 500)
    kept = within_shares(pairs)
    assert set(map(id, kept)) == set(map(id, within_shares(pairs)))
    assert len(set(kept) & set(within_shares(pairs[1:]))) >= len(kept) - 2
    assert sum(made.person == "again" for made in kept) == 22


def test_of_a_person_with_too_many_pairs_each_thread_has_its_turn() -> None:
    pairs = [made for place in range(40) for made in of(f"p{place}", 5)] + of("again", 400, threads=20) + of("again", 400, threads=1)
    kept = Counter(made.thread for made in within_shares(pairs) if made.person == "again")
    assert len(kept) == 20
    assert max(kept.values()) == 2


def test_a_team_of_three_loses_none_of_its_pairs() -> None:
    pairs = of("ada", 60) + of("bo", 30) + of("cy", 10)
    assert within_shares(pairs) == pairs


def manifest(dropped: dict[DropReason, int], *, train: int, outputs: int) -> DatasetManifest:
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


def test_too_few_pairs_say_how_many_outputs_fell_out_for_which_reason_and_what_would_change_it() -> None:
    said = shortfall(manifest({"no_prompt": 1200, "empty": 3}, train=2, outputs=1205)) or ""
    assert said.startswith("2 training pairs of 1,205 outputs, at least 8 are needed")
    assert f"1,200 no_prompt ({ADVICE['no_prompt']}); 3 empty ({ADVICE['empty']})" in said
    assert "No output is there at all" in (shortfall(manifest({}, train=0, outputs=0)) or "")
    assert shortfall(manifest({"empty": 3}, train=8, outputs=11)) is None


def test_too_few_pairs_for_every_reason_at_once_still_count_each_in_a_thousand_characters() -> None:
    dropped = {reason: 10**9 + n for n, reason in enumerate(ADVICE)}
    said = shortfall(manifest(dropped, train=0, outputs=10**11)) or ""
    assert len(said) <= 1000
    assert all(f"{count:,} {reason}" in said for reason, count in dropped.items())
    assert ADVICE["blocked"] in said  # the most frequent is explained
