"""A dataset version: pairs split so that no conversation is on both sides, and the manifest that says what it holds."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from pydantic import Field

from rlaas.chat import Message
from rlaas.ids import Sha256, SkillName, TenantId
from rlaas.preferences.left_out import LONGEST_REASON, DropReason, explained
from rlaas.preferences.pairs import Pair
from rlaas.voices import FREE, LEAST_OF_PAIRS, cap
from rlaas.wire import WireModel

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")
TEST_PROMPTS = "test_prompts.jsonl"
"""A dataset's file of what is asked in an evaluation, beside the Parquet files: functions read none."""


class SplitShares(WireModel):
    """Shares of the threads kept from training; held-out interactions go to the test split on top."""

    validation: float = Field(default=0.05, ge=0, lt=1)
    test: float = Field(default=0.1, ge=0, lt=1)


class SplitFile(WireModel):
    """One Parquet file of a dataset. `largest_share` of its pairs are of one of its `people`."""

    pairs: int
    threads: int
    people: int = 0
    largest_share: float = 0.0
    sha256: Sha256


class DemonstrationsFile(WireModel):
    """The Parquet file of what SFT alone learns from, beside the pairs."""

    demonstrations: int
    threads: int
    sha256: Sha256


class PromptsFile(WireModel):
    """`TEST_PROMPTS`: JSON lines in the order of the test split's rows."""

    prompts: int
    sha256: Sha256


class HeldOutPrompt(WireModel, hide_input_in_errors=True):
    """A line of it: what the models are asked, and nothing of what people then sent. `tools` is JSON."""

    interaction_id: str
    prompt: tuple[Message, ...]
    tools: str | None = None


class DatasetManifest(WireModel):
    """What a dataset version holds and what it was made from. Times are RFC 3339; `events_sha256` is of all events'
    sorted ids.

    Of `outputs` in all, `dropped` says how many are not in it for which reason, and `advice` what would change each.
    Fewer than `min_pairs` training pairs are too few to learn from.
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


def shortfall(manifest: DatasetManifest) -> str | None:
    """Why the dataset is too small to learn from, what of its outputs fell out and what would change it, in at most
    1,000 characters (it becomes the job's failure reason); `None` where it is large enough."""
    pairs = {split: manifest.splits[split].pairs for split in SPLITS}
    if pairs["train"] >= manifest.min_pairs:
        return None
    shown = manifest.demonstrations.demonstrations if manifest.demonstrations else 0
    said = (
        f"{pairs['train']:,} training pairs of {manifest.outputs:,} outputs, at least {manifest.min_pairs:,} are needed: collect more "
        f"edits or comparisons, or lower the run's min_pairs. Kept for judging: {pairs['test']:,} test and {pairs['validation']:,} "
        f"validation pairs; for SFT alone: {shown:,} demonstrations."
    )
    if not manifest.dropped:
        return said + ("" if manifest.outputs else " No output is there at all: log outputs, or widen window_days.")
    return f"{said} Left out: {explained(manifest.dropped, room=LONGEST_REASON - len(said) - 20)}"


def split_pairs(pairs: Iterable[Pair], shares: SplitShares, *, salt: str) -> dict[Split, list[Pair]]:
    """Each pair's side, by a hash of `salt` and its thread: a thread is on one side only, and stays there in later
    versions.

    A thread with any held-out interaction is wholly in the test split, and only there are pairs whose draft was sent
    unchanged.
    """
    sides = _sides(pairs, shares, salt=salt)
    return {split: [pair for pair in side if split == "test" or not pair.unchanged] for split, side in sides.items()}


def training_demonstrations(pairs: Iterable[Pair], shares: SplitShares, *, salt: str) -> list[Pair]:
    """The demonstrations whose threads are on the training side: what SFT learns from beside the training pairs."""
    return [pair for pair in _sides(pairs, shares, salt=salt)["train"] if pair.demonstration]


def within_shares(pairs: Sequence[Pair]) -> list[Pair]:
    """`pairs` without those by which anybody makes more than his share of them (`voices.cap`; `voices.FREE` are always
    kept), in order.

    Of a person with too many the threads take turns, so that one thread gone over again and again goes first; within a
    thread a hash chooses, so that neither the first nor the last does.
    """
    by_person: dict[str, list[Pair]] = {}
    for pair in pairs:
        by_person.setdefault(pair.person or pair.thread, []).append(pair)
    most = cap([len(made) for made in by_person.values()], least=LEAST_OF_PAIRS)
    kept = {id(pair) for made in by_person.values() for pair in (made if len(made) <= most else _in_turn(made)[: max(FREE, int(most))])}
    return [pair for pair in pairs if id(pair) in kept]


def _in_turn(pairs: Sequence[Pair]) -> list[Pair]:
    turns: Counter[str] = Counter()
    found: list[tuple[int, str, Pair]] = []
    for drawn, pair in sorted(((pair.content_sha256, pair) for pair in pairs), key=lambda one: one[0]):
        found.append((turns[pair.thread], drawn, pair))
        turns[pair.thread] += 1
    return [pair for *_, pair in sorted(found, key=lambda one: one[:2])]


def _sides(pairs: Iterable[Pair], shares: SplitShares, *, salt: str) -> dict[Split, list[Pair]]:
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


def trl_row(pair: Pair) -> Mapping[str, object]:
    """A row in TRL's conversational preference format (`prompt`, `chosen`, `rejected`, `tools`), its provenance beside
    it."""
    return {
        "prompt": [message.plain() for message in pair.prompt],
        "chosen": [{"role": "assistant", "content": pair.chosen}],
        "rejected": [{"role": "assistant", "content": pair.rejected}],
        "tools": pair.tools,
        **_provenance(pair),
        "preferred_output_id": pair.preferred_output_id,
        "discarded": pair.discarded,
    }


def held_out_prompt(pair: Pair) -> HeldOutPrompt:
    """What whoever asks the models sees of a pair of the test split."""
    return HeldOutPrompt(interaction_id=pair.interaction_id, prompt=pair.prompt, tools=pair.tools)


def demonstration_row(pair: Pair) -> Mapping[str, object]:
    """A row in TRL's conversational prompt-completion format (`prompt`, `completion`, `tools`), its provenance beside
    it."""
    return {
        "prompt": [message.plain() for message in pair.prompt],
        "completion": [{"role": "assistant", "content": pair.chosen}],
        "tools": pair.tools,
        **_provenance(pair),
    }


def _provenance(pair: Pair) -> dict[str, object]:
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
    """The messages in a column of a dataset's row; Parquet writes fields that a message does not have as null."""
    assert isinstance(column, list)
    return tuple(
        Message.model_validate({name: value for name, value in said.items() if value is not None}, strict=False) for said in column
    )
