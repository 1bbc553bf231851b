"""A dataset version: its pairs in splits, with each conversation in one split only, and the manifest of its content."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from pydantic import Field

from rlaas.chat import Message
from rlaas.ids import Sha256, SkillName, TenantId
from rlaas.preferences.left_out import LONGEST_REASON, DropReason, explain_drops
from rlaas.preferences.pairs import Pair
from rlaas.voices import FREE, LEAST_OF_PAIRS, bound_units
from rlaas.wire import WireModel

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")
TEST_PROMPTS = "test_prompts.jsonl"
"""A dataset's file with the prompts of an evaluation, as JSON lines: functions cannot read its Parquet files."""


class SplitShares(WireModel):
    """Shares of threads, in [0, 1), that are not trained on. Held-out interactions are added to the test split."""

    validation: float = Field(default=0.05, ge=0, lt=1)
    test: float = Field(default=0.1, ge=0, lt=1)


class SplitFile(WireModel):
    """One Parquet file of a dataset. `largest_share`, in [0, 1], is the share of the person with the most pairs among
    its `people`."""

    pairs: int
    threads: int
    people: int = 0
    largest_share: float = 0.0
    sha256: Sha256


class DemonstrationsFile(WireModel):
    """The Parquet file of demonstrations, from which only SFT learns, in addition to the pairs."""

    demonstrations: int
    threads: int
    sha256: Sha256


class PromptsFile(WireModel):
    """The file `TEST_PROMPTS`: JSON lines in the order of the test split's rows."""

    prompts: int
    sha256: Sha256


class HeldOutPrompt(WireModel, hide_input_in_errors=True):
    """A line of `TEST_PROMPTS`: what the models are asked, without what people then sent. `tools` is JSON."""

    interaction_id: str
    prompt: tuple[Message, ...]
    tools: str | None = None


class DatasetManifest(WireModel):
    """The content of a dataset version and the events that it was made from. Times are RFC 3339; `events_sha256` is the
    hash of the sorted ids of all events.

    `outputs` is the number of all outputs; `dropped` counts those that made no pair by reason, and `advice` says what
    would change each reason. Fewer than `min_pairs` training pairs are too few to learn from.
    """

    tenant_id: TenantId
    skill: SkillName
    version: str
    created_at: str
    splits: dict[Split, SplitFile]
    demonstrations: DemonstrationsFile | None = None
    test_prompts: PromptsFile | None = None
    outputs: int = 0
    dropped: dict[DropReason, int]
    advice: dict[DropReason, str] = Field(default_factory=dict)
    min_pairs: int = 1
    discarded_drafts: int
    events: int
    events_since: str | None
    events_until: str | None
    events_sha256: Sha256
    policies: tuple[str, ...]
    columns: tuple[str, ...]


def explain_shortfall(manifest: DatasetManifest) -> str | None:
    """Why the dataset is too small to learn from, why outputs made no pair and what would change that, in at most 1,000
    characters (it becomes the job's failure reason); `None` when the dataset is large enough."""
    pairs = {split: manifest.splits[split].pairs for split in SPLITS}
    if pairs["train"] >= manifest.min_pairs:
        return None
    demonstrations = manifest.demonstrations.demonstrations if manifest.demonstrations else 0
    summary = (
        f"{pairs['train']:,} training pairs of {manifest.outputs:,} outputs, at least {manifest.min_pairs:,} are needed: collect more "
        f"edits or comparisons, or lower the run's min_pairs. Kept for judging: {pairs['test']:,} test and {pairs['validation']:,} "
        f"validation pairs; for SFT alone: {demonstrations:,} demonstrations."
    )
    if not manifest.dropped:
        return summary + ("" if manifest.outputs else " There are no outputs at all: log outputs, or widen window_days.")
    return f"{summary} Left out: {explain_drops(manifest.dropped, room=LONGEST_REASON - len(summary) - 20)}"


def split_pairs(pairs: Iterable[Pair], shares: SplitShares, *, salt: str) -> dict[Split, list[Pair]]:
    """The pairs of each split, by a hash of `salt` and the pair's thread: all of a thread is in one split, and stays
    there in later versions.

    A thread with any held-out interaction is in the test split. Pairs whose draft was sent unchanged are only in the
    test split.
    """
    sides = _assign_sides(pairs, shares, salt=salt)
    return {split: [pair for pair in side if split == "test" or not pair.unchanged] for split, side in sides.items()}


def select_demonstrations(pairs: Iterable[Pair], shares: SplitShares, *, salt: str) -> list[Pair]:
    """The demonstrations of the threads in the training split: SFT learns from them in addition to the pairs."""
    return [pair for pair in _assign_sides(pairs, shares, salt=salt)["train"] if pair.demonstration]


def keep_within_shares(pairs: Sequence[Pair]) -> list[Pair]:
    """`pairs` in order, without those that exceed a person's share of them (`voices.bound_units`; `voices.FREE` are
    always kept).

    When a person has too many, pairs are kept from each of the person's threads in turn, so that a thread edited again
    and again loses the most. Within a thread a hash decides the order, and not time.
    """
    by_person: dict[str, list[Pair]] = {}
    for pair in pairs:
        by_person.setdefault(pair.person or pair.thread, []).append(pair)
    most = bound_units([len(pairs_of_one) for pairs_of_one in by_person.values()], least=LEAST_OF_PAIRS)
    kept_ids: set[int] = set()
    for pairs_of_one in by_person.values():
        kept_pairs = pairs_of_one if len(pairs_of_one) <= most else _take_turns(pairs_of_one)[: max(FREE, int(most))]
        kept_ids.update(map(id, kept_pairs))
    return [pair for pair in pairs if id(pair) in kept_ids]


def _take_turns(pairs: Sequence[Pair]) -> list[Pair]:
    turns: Counter[str] = Counter()
    entries: list[tuple[int, str, Pair]] = []
    for content_hash, pair in sorted(((pair.content_sha256, pair) for pair in pairs), key=lambda entry: entry[0]):
        entries.append((turns[pair.thread], content_hash, pair))
        turns[pair.thread] += 1
    return [pair for *_, pair in sorted(entries, key=lambda entry: entry[:2])]


def _assign_sides(pairs: Iterable[Pair], shares: SplitShares, *, salt: str) -> dict[Split, list[Pair]]:
    pairs = list(pairs)
    held_out = {pair.thread for pair in pairs if pair.held_out}
    sides: dict[Split, list[Pair]] = {split: [] for split in SPLITS}
    for pair in pairs:
        point = int.from_bytes(hashlib.sha256(f"{salt}:{pair.thread}".encode()).digest()[:8], "big") / 2**64
        if pair.thread in held_out or point < shares.test:
            sides["test"].append(pair)
        elif point < shares.test + shares.validation:
            sides["validation"].append(pair)
        else:
            sides["train"].append(pair)
    return sides


def build_trl_row(pair: Pair) -> Mapping[str, object]:
    """A row in TRL's conversational preference format (`prompt`, `chosen`, `rejected`, `tools`), with its
    provenance."""
    return {
        "prompt": [message.without_extras().plain() for message in pair.prompt],
        "chosen": [{"role": "assistant", "content": pair.chosen}],
        "rejected": [{"role": "assistant", "content": pair.rejected}],
        "tools": pair.tools,
        **_build_provenance(pair),
        "preferred_output_id": pair.preferred_output_id,
        "discarded": pair.discarded,
    }


def build_held_out_prompt(pair: Pair) -> HeldOutPrompt:
    """The part of a test pair that is used to ask the models."""
    return HeldOutPrompt(interaction_id=pair.interaction_id, prompt=pair.prompt, tools=pair.tools)


def build_demonstration_row(pair: Pair) -> Mapping[str, object]:
    """A row in TRL's conversational prompt-completion format (`prompt`, `completion`, `tools`), with its provenance."""
    return {
        "prompt": [message.without_extras().plain() for message in pair.prompt],
        "completion": [{"role": "assistant", "content": pair.chosen}],
        "tools": pair.tools,
        **_build_provenance(pair),
    }


def _build_provenance(pair: Pair) -> dict[str, object]:
    return {
        "interaction_id": pair.interaction_id,
        "output_id": pair.output_id,
        "feedback_ids": list(pair.feedback_ids),
        "thread": pair.thread,
        "person": pair.person,
        "policy_id": pair.policy_id,
        "occurred_at": pair.occurred_at,
    }


def read_messages(column: object) -> tuple[Message, ...]:
    """The messages in a column of a dataset's row. Parquet stores null for fields that a message does not have."""
    assert isinstance(column, list)
    return tuple(
        Message.model_validate({name: value for name, value in fields.items() if value is not None}, strict=False) for fields in column
    )
