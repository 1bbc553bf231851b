"""The registry in memory: every Protocol that `rlaas.adapters.aws.registry.DynamoRegistry` serves."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice

from pydantic import BaseModel

from rlaas.errors import Conflict, NotFound
from rlaas.ids import hash_canonical_json, parse_policy_id
from rlaas.policies.bundle import Policy
from rlaas.policies.policy_store import policy_key
from rlaas.routing.route import Route
from rlaas.routing.route_store import route_key
from rlaas.skills.skill import Metric, RewardSpec, Skill
from rlaas.tenancy.audit import RegistryContent
from rlaas.tenancy.keys import ApiKey
from rlaas.tenancy.registry import Change, Page, Record, Stored, decode_cursor, encode_cursor, key_key, skill_key


def make_content(stored: Stored[BaseModel]) -> str:
    return hash_canonical_json([stored.record.model_dump(mode="json"), stored.change.actor, stored.change.reason])


@dataclass
class MemoryRegistry:
    records: dict[tuple[str, str], Stored[BaseModel]] = field(default_factory=dict)
    numbers: dict[tuple[str, str, str], int] = field(default_factory=dict)
    callers: dict[str, ApiKey] = field(default_factory=dict)
    """Keys that no tenant's records hold."""

    def get(self, model: type[Record], tenant_id: str, sort_key: str) -> Stored[Record]:
        stored = self.records.get((tenant_id, sort_key))
        if stored is None or not isinstance(stored.record, model):
            raise NotFound(f"there is no {sort_key}")
        return Stored(stored.record, stored.version, stored.change)

    def iterate_contents(self, tenant_id: str) -> Iterator[RegistryContent]:
        for (tenant, sort_key), stored in self.records.items():
            if tenant == tenant_id:
                yield RegistryContent(sort_key, stored.version, make_content(stored), stored.change.at)

    def list(
        self, model: type[Record], tenant_id: str, prefix: str, *, limit: int = 100, cursor: str | None = None, newest_first: bool = False
    ) -> Page[Record]:
        last = decode_cursor(cursor, pattern=re.escape(prefix) + ".+") if cursor is not None else None
        keys = sorted((sk for tenant, sk in self.records if tenant == tenant_id and sk.startswith(prefix)), reverse=newest_first)
        after = (sk for sk in keys if last is None or (sk < last if newest_first else sk > last))
        page_keys = list(islice(after, limit))
        more = len(page_keys) == limit
        return Page(tuple(self._read(model, tenant_id, sk) for sk in page_keys), encode_cursor(page_keys[-1]) if more else None)

    def _read(self, model: type[Record], tenant_id: str, sort_key: str) -> Stored[Record]:
        """Read the body as `model`, as the tables do, whatever wrote it."""
        stored = self.records[tenant_id, sort_key]
        body = stored.record.model_dump(mode="json")
        return Stored(model.model_validate(body, strict=False, extra="ignore"), stored.version, stored.change)

    def put(self, tenant_id: str, sort_key: str, record: BaseModel, change: Change) -> None:
        self.replace(tenant_id, sort_key, record, expected_version=0, change=change)

    def replace(self, tenant_id: str, sort_key: str, record: BaseModel, *, expected_version: int, change: Change) -> int:
        current = self.records.get((tenant_id, sort_key))
        if (current.version if current else 0) != expected_version:
            raise Conflict(f"{sort_key} is not at version {expected_version}", param="expected_version" if expected_version else None)
        self.records[tenant_id, sort_key] = Stored(record, expected_version + 1, change)
        return expected_version + 1

    def allocate_number(self, tenant_id: str, skill: str, what: str) -> int:
        number = self.numbers.get((tenant_id, skill, what), 0) + 1
        self.numbers[tenant_id, skill, what] = number
        return number

    def has_skill(self, tenant_id: str, skill: str) -> bool:
        return (tenant_id, skill_key(skill)) in self.records

    def get_metrics(self, tenant_id: str, skill: str) -> dict[str, Metric]:
        return self.get(Skill, tenant_id, skill_key(skill)).record.metrics

    def get_reward_spec(self, tenant_id: str, skill: str) -> RewardSpec:
        return self.get(Skill, tenant_id, skill_key(skill)).record.reward

    def put_policy(self, policy: Policy, change: Change) -> None:
        self.put(policy.tenant_id, policy_key(policy.skill, policy.version), policy, change)

    def get_policy(self, tenant_id: str, policy_id: str) -> Policy:
        try:
            return self.get(Policy, tenant_id, policy_key(*parse_policy_id(policy_id))).record
        except (ValueError, NotFound):
            raise NotFound(f"there is no policy {policy_id!r}", param="policy_id") from None

    def get_route(self, tenant_id: str, skill: str) -> Route:
        try:
            return self.get(Route, tenant_id, route_key(skill)).record
        except NotFound:
            raise NotFound(f"the skill {skill!r} has no route", param="skill") from None

    def get_route_for_request(self, tenant_id: str, skill: str) -> Route:
        return self.get_route(tenant_id, skill)

    def write_route(self, route: Route, *, expected_version: int) -> None:
        if route.version != expected_version + 1:
            raise ValueError(f"route version {route.version} does not follow {expected_version}")
        change = Change(route.changed_by, route.reason, route.changed_at)
        self.replace(route.tenant_id, route_key(route.skill), route, expected_version=expected_version, change=change)

    def roll_back(self, tenant_id: str, skill: str, change: Change, *, rollout_id: str | None = None) -> Route:
        route = self.get_route(tenant_id, skill)
        if rollout_id is not None and route.rollout_id != rollout_id:
            raise Conflict("the route belongs to something else")
        if route.mode == "rolled_back":
            return route
        if route.last_good is None:
            raise Conflict("there is no way back")
        back = route.model_copy(
            update={
                "control": route.last_good.control,
                "arms": route.last_good.arms,
                "mode": "rolled_back",
                "version": route.version + 1,
                "changed_by": change.actor,
                "reason": change.reason,
                "changed_at": change.at,
            }
        )
        self.write_route(back, expected_version=route.version)
        return back

    def create_key(self, key: ApiKey, change: Change) -> None:
        self.put(key.tenant_id, key_key(key.key_id), key, change)

    def find_key(self, key_id: str) -> ApiKey | None:
        keys = [stored.record for (_, sk), stored in self.records.items() if sk == key_key(key_id)]
        return keys[0] if keys and isinstance(keys[0], ApiKey) else self.callers.get(key_id)

    def revoke_key(self, tenant_id: str, key_id: str, change: Change) -> ApiKey:
        stored = self.get(ApiKey, tenant_id, key_key(key_id))
        if stored.record.revoked_at is not None:
            return stored.record
        revoked_key = stored.record.model_copy(update={"revoked_at": change.at})
        self.replace(tenant_id, key_key(key_id), revoked_key, expected_version=stored.version, change=change)
        return revoked_key
