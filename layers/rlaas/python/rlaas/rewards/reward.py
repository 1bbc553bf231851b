"""The reward of an output: what people did with it, as one number in [0, 1]."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rlaas.ids import derive_id
from rlaas.rewards.similarity import SimilarityMeasure, compare_texts
from rlaas.skills.skill import RewardSpec
from rlaas.telemetry.events import FeedbackSubmitted, OutputProduced, RewardComputed
from rlaas.telemetry.store import StoredEvent


@dataclass(frozen=True, slots=True)
class Components:
    """What feedback gives of a reward: the components, each in [0, 1], the edits and actions among the feedback, and
    how texts were compared; `None` where none were."""

    values: dict[str, float]
    events: list[StoredEvent]
    measure: SimilarityMeasure | None = None


def compute_components(output: StoredEvent, feedback: Sequence[StoredEvent]) -> Components:
    """The components that the feedback on `output` gives.

    `sent` is 1 for an output sent and 0 for one discarded or regenerated. `edit_similarity` compares the text with its
    final form; it is 0 for an output not sent and 1 for one sent without an edit. The edit and the action that arrived
    last count.
    Raises: ValueError when `output` is not an output.
    """
    output_event = output.event()
    if not isinstance(output_event, OutputProduced):
        raise ValueError(f"{output.event_id} is not an output")
    by_arrival = sorted(feedback, key=lambda stored: (stored.received_at, stored.event_id))
    feedback_events = [(stored, event) for stored in by_arrival if isinstance(event := stored.event(), FeedbackSubmitted)]
    edits_and_actions = [(stored, event) for stored, event in feedback_events if event.kind in ("edit", "action")]
    finals = [event.final_text for _, event in edits_and_actions if event.final_text is not None]
    actions = [event.action for _, event in edits_and_actions if event.action is not None]
    values: dict[str, float] = {}
    measure: SimilarityMeasure | None = None
    if actions:
        values["sent"] = 1.0 if actions[-1] == "sent" else 0.0
    if values.get("sent") == 0.0:
        values["edit_similarity"] = 0.0
    elif finals:
        similarity = compare_texts(output_event.text, finals[-1])
        values["edit_similarity"], measure = similarity.value, similarity.measure
    elif actions:
        values["edit_similarity"] = 1.0
    return Components(values, [stored for stored, _ in edits_and_actions], measure)


def compute_reward(output: StoredEvent, feedback: Sequence[StoredEvent], spec: RewardSpec, *, n: int) -> RewardComputed | None:
    """The weighted mean, in [0, 1], of the components that the feedback on `output` gives so far; None while it gives
    none.

    `n` numbers the rewards of an output, from 1. Raises: ValueError when `output` is not an output.
    """
    output_event = output.event()
    if not isinstance(output_event, OutputProduced):
        raise ValueError(f"{output.event_id} is not an output")
    components = compute_components(output, feedback)
    weights = {name: weight for name, weight in spec.weights.items() if name in components.values}
    if not weights:
        return None
    reward = sum(weight * components.values[name] for name, weight in weights.items()) / sum(weights.values())
    decision = output_event.decision
    return RewardComputed(
        skill=output.skill,
        thread_id=output.thread_id,
        user_id=output_event.user_id,
        occurred_at=max(stored.received_at for stored in components.events),
        reward_id=make_reward_id(output.event_id, n),
        interaction_id=output_event.interaction_id,
        output_id=output.event_id,
        reward=reward,
        components=components.values,
        edit_measure="pieces" if components.measure == "pieces" else None,
        n=n,
        event_ids=tuple(sorted(stored.event_id for stored in components.events)),
        policy_id=output.policy_id,
        arm=decision.arm if decision else None,
        propensity=decision.propensity if decision else None,
        route_version=decision.route_version if decision else None,
        rollout_id=decision.rollout_id if decision else None,
        fallback=decision is not None and not decision.counts,
    )


def select_latest_rewards(rewards: Iterable[RewardComputed]) -> dict[str, RewardComputed]:
    """Per output id the reward with the highest `n`."""
    latest: dict[str, RewardComputed] = {}
    for reward in rewards:
        if reward.output_id not in latest or reward.n > latest[reward.output_id].n:
            latest[reward.output_id] = reward
    return latest


def make_reward_id(output_id: str, n: int) -> str:
    """The id of the output's `n`th reward."""
    readable = f"rew_{output_id}_{n}"
    return readable if len(readable) <= 64 else derive_id("rew", output_id, str(n))
