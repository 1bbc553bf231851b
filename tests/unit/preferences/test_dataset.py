"""Which side a pair is on."""

from hypothesis import given
from hypothesis import strategies as st

from rlaas.preferences.dataset import SplitShares, split_pairs
from rlaas.preferences.pairs import Pair
from rlaas.telemetry.events import Message


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
