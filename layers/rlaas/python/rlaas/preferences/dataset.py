"""A dataset version: pairs split so that no conversation is on both sides, and the manifest that says what it holds."""

import hashlib
from collections.abc import Iterable, Mapping
from typing import Literal

from pydantic import Field

from rlaas.ids import Sha256, SkillName, TenantId
from rlaas.preferences.pairs import DropReason, Pair
from rlaas.wire import WireModel

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")


class SplitShares(WireModel):
    """Shares of the threads kept from training; held-out interactions go to the test split on top."""

    validation: float = Field(default=0.05, ge=0, lt=1)
    test: float = Field(default=0.1, ge=0, lt=1)


class SplitFile(WireModel):
    """One Parquet file of a dataset."""

    pairs: int
    threads: int
    sha256: Sha256


class DatasetManifest(WireModel):
    """What a dataset version holds and what it was made from. Times are RFC 3339; `events_sha256` is of all events' sorted ids."""

    tenant_id: TenantId
    skill: SkillName
    version: str
    created_at: str
    splits: dict[Split, SplitFile]
    dropped: dict[DropReason, int]
    discarded_drafts: int
    events: int
    events_since: str | None
    events_until: str | None
    events_sha256: Sha256
    policies: tuple[str, ...]
    columns: tuple[str, ...]


def split_pairs(pairs: Iterable[Pair], shares: SplitShares, *, salt: str) -> dict[Split, list[Pair]]:
    """Each pair's side, by a hash of `salt` and its thread: a thread is on one side only, and stays there in later versions.

    A thread with any held-out interaction is wholly in the test split, and only there are pairs whose draft was sent unchanged.
    """
    pairs = list(pairs)
    held_out = {pair.thread for pair in pairs if pair.held_out}
    sides: dict[Split, list[Pair]] = {split: [] for split in SPLITS}
    for pair in pairs:
        point = int.from_bytes(hashlib.sha256(f"{salt}:{pair.thread}".encode()).digest()[:8], "big") / 2**64
        if pair.thread in held_out or point < shares.test:
            sides["test"].append(pair)
        elif pair.unchanged:
            continue
        elif point < shares.test + shares.validation:
            sides["validation"].append(pair)
        else:
            sides["train"].append(pair)
    return sides


def trl_row(pair: Pair) -> Mapping[str, object]:
    """A row in TRL's conversational preference format (`prompt`, `chosen`, `rejected`), its provenance beside it."""
    return {
        "prompt": [{"role": message.role, "content": message.content} for message in pair.prompt],
        "chosen": [{"role": "assistant", "content": pair.chosen}],
        "rejected": [{"role": "assistant", "content": pair.rejected}],
        "interaction_id": pair.interaction_id,
        "output_id": pair.output_id,
        "feedback_ids": list(pair.feedback_ids),
        "thread": pair.thread,
        "policy_id": pair.policy_id,
        "occurred_at": pair.occurred_at,
        "discarded": pair.discarded,
    }
