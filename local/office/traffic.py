"""The office at work: agents who ask RLaaS for drafts and report what they did with them, over HTTP and nothing else.

Every id is made here and kept through retries, so that a connection lost between a request and its answer can neither
lose an event nor store it twice. The office remembers only what the service acknowledged; everything else that is
reported about a run is read back from what the service stored.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import httpx
from ulid import ULID

from local.office.agents import OFFICE, Agent, react
from rlaas.preferences.pairs import HELD_OUT_TAG

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from local.office.templates import Case

INFER_TIMEOUT_SECONDS = 60.0
ATTEMPTS = 5
FIRST_PAUSE_SECONDS = 0.1
TRY_AGAIN = (429, 503)
"""Statuses worth another try: throttled, or something behind the API did not answer."""
PAUSE_AFTER_REFUSAL_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class FailedRequest:
    """An answer other than 2xx, or none after all attempts (`status` 0)."""

    path: str
    status: int
    detail: str
    interaction_id: str


@dataclass(slots=True)
class Ledger:
    """What the service acknowledged (event ids, each once), and what it refused."""

    acknowledged: list[str] = field(default_factory=list)
    refusals: list[FailedRequest] = field(default_factory=list)
    requests: int = 0
    reconnects: int = 0


class Office:
    """`desks` agents who share one inbox and one connection pool. Use as an async context manager."""

    def __init__(self, *, api_url: str, api_key: str, skill: str, desks: int, seed: int) -> None:
        self._skill = skill
        self._desks = [OFFICE[n % len(OFFICE)] for n in range(desks)]
        self._seed = seed
        self._http = httpx.AsyncClient(
            base_url=api_url.rstrip("/") + "/",
            headers={"Authorization": f"Bearer {api_key}"},
            timeout=httpx.Timeout(INFER_TIMEOUT_SECONDS, connect=5.0),
            limits=httpx.Limits(max_connections=desks, max_keepalive_connections=desks),
        )
        self.ledger = Ledger()

    async def __aenter__(self) -> Office:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()

    async def work(
        self, mail: Iterable[Case], *, week: str, stop: asyncio.Event | None = None, each: Callable[[bool], None] = lambda is_answered: None
    ) -> int:
        """Answer `mail` until it ends or `stop` is set; the number of cases answered. `each` is called after every
        case, with whether it was answered.

        A desk takes the next email when it has finished its last, so there are never more requests under way than
        desks.
        """
        inbox = enumerate(mail)
        count = 0

        async def desk(agent: Agent) -> None:
            nonlocal count
            while not (stop and stop.is_set()):
                entry = next(inbox, None)
                if entry is None:
                    return
                number, case = entry
                is_answered = await self._answer(agent, case, thread_id=f"{week}-{number:04d}")
                count += is_answered
                if not is_answered:
                    await asyncio.sleep(PAUSE_AFTER_REFUSAL_SECONDS)
                each(is_answered)

        async with asyncio.TaskGroup() as desks:
            for agent in self._desks:
                desks.create_task(desk(agent))
        return count

    async def _answer(self, agent: Agent, case: Case, thread_id: str) -> bool:
        """Answer one email: request the draft, report the edit, report the action. Whether the service took all
        three."""
        about: dict[str, object] = {
            "skill": self._skill,
            "thread_id": thread_id,
            "user_id": agent.name,
            "metadata": {"issue": case.issue, "split": case.split},
        }
        interaction_id = f"int_{ULID()}"
        tags = [HELD_OUT_TAG] if case.split == "held_out" else []
        request: dict[str, object] = {**about, "interaction_id": interaction_id, "inputs": case.inputs, "tags": tags}
        output = await self._post("v1/infer", interaction_id, request)
        if output is None:
            return False
        output_id, draft = str(output["output_id"]), str(output["text"])
        self.ledger.acknowledged += [interaction_id, output_id]
        reaction = react(agent, case, draft, self._seed)
        about |= {"interaction_id": interaction_id, "output_id": output_id}
        for feedback in ({"kind": "edit", "final_text": reaction.final_text}, {"kind": "action", "action": reaction.action}):
            feedback_id = f"fbk_{ULID()}"
            if await self._post("v1/feedback.submit", interaction_id, {**about, "feedback_id": feedback_id, **feedback}) is None:
                return False
            self.ledger.acknowledged.append(feedback_id)
        return True

    async def _post(self, path: str, interaction_id: str, body: dict[str, object]) -> dict[str, object] | None:
        """The answer's body, or None when no attempt succeeded.

        A request that was lost, throttled or unavailable is tried again with the same ids. Each refusal is recorded,
        even when a later try succeeds.
        """
        for attempt in range(ATTEMPTS):
            if attempt:
                await asyncio.sleep(FIRST_PAUSE_SECONDS * 2 ** (attempt - 1))
            self.ledger.requests += 1
            try:
                answer = await self._http.post(path, json=body)
            except httpx.TransportError as error:
                self.ledger.reconnects += 1
                if attempt == ATTEMPTS - 1:
                    self.ledger.refusals.append(FailedRequest(path, 0, f"{type(error).__name__} {error}".strip(), interaction_id))
                continue
            if answer.is_success:
                reply: dict[str, object] = answer.json()
                return reply
            self.ledger.refusals.append(FailedRequest(path, answer.status_code, answer.text[:300], interaction_id))
            if answer.status_code not in TRY_AGAIN:
                break
        return None
