from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from rlaas.adapters.aws.audit_log import read_registry_change
from rlaas.adapters.aws.registry import DynamoRegistry
from rlaas.errors import Conflict, InvalidInput, NotFound
from rlaas.policies.policy_store import Policies
from rlaas.routing.route import Arm, RouteTarget
from rlaas.routing.route_store import Routes
from rlaas.skills.skill import RewardSpec, Skill
from rlaas.telemetry.store import SkillSource
from rlaas.tenancy.keys import KeySource, make_key
from rlaas.tenancy.registry import Change, Registry, encode_cursor, skill_key
from tests.contract.tables import make_table
from tests.fakes.worlds import CHANGE, NOW, SKILL, TENANT, make_canary_route, make_policy, make_route

if TYPE_CHECKING:
    from types_boto3_dynamodb import DynamoDBClient


class Whole(Registry, Policies, Routes, SkillSource, KeySource):
    """What one adapter serves."""


LATER = Change(actor="alarm", reason="reward fell", at=NOW + timedelta(minutes=1))


def skill(name: str = SKILL, description: str = "") -> Skill:
    return Skill(
        tenant_id=TENANT,
        skill=name,
        description=description,
        reward=RewardSpec(edit_similarity=0.3, sent=0.7),
        created_at=NOW,
        metadata={"floats": [0.1, 1e-9, 12345678.9], "whole": 3, "none": None, "nested": {"yes": True, "text": ""}},
    )


def test_a_document_comes_back_as_it_was_put(registry: Whole) -> None:
    registry.put(TENANT, skill_key(SKILL), skill(), CHANGE)
    stored = registry.get(Skill, TENANT, skill_key(SKILL))
    assert (stored.record, stored.version, stored.change) == (skill(), 1, CHANGE)


def test_documents_of_other_tenants_are_not_found(registry: Whole) -> None:
    registry.put(TENANT, skill_key(SKILL), skill(), CHANGE)
    with pytest.raises(NotFound):
        registry.get(Skill, "other", skill_key(SKILL))
    assert not registry.has_skill("other", SKILL)
    assert registry.has_skill(TENANT, SKILL)


def test_a_second_put_conflicts_and_changes_nothing(registry: Whole) -> None:
    registry.put(TENANT, skill_key(SKILL), skill(), CHANGE)
    with pytest.raises(Conflict):
        registry.put(TENANT, skill_key(SKILL), skill(description="another"), LATER)
    assert registry.get(Skill, TENANT, skill_key(SKILL)).record.description == ""


def test_of_two_replacements_of_one_version_the_second_loses(registry: Whole) -> None:
    registry.put(TENANT, skill_key(SKILL), skill(), CHANGE)
    assert registry.replace(TENANT, skill_key(SKILL), skill(description="first"), expected_version=1, change=LATER) == 2
    with pytest.raises(Conflict) as lost:
        registry.replace(TENANT, skill_key(SKILL), skill(description="second"), expected_version=1, change=LATER)
    assert lost.value.param == "expected_version"
    stored = registry.get(Skill, TENANT, skill_key(SKILL))
    assert (stored.record.description, stored.version, stored.change) == ("first", 2, LATER)


def test_a_document_that_is_not_there_cannot_be_replaced(registry: Whole) -> None:
    with pytest.raises(Conflict):
        registry.replace(TENANT, skill_key(SKILL), skill(), expected_version=1, change=CHANGE)


def test_pages_follow_each_other_by_cursor_in_both_directions(registry: Whole) -> None:
    names = [f"skill-{n}" for n in range(5)]
    for name in names:
        registry.put(TENANT, skill_key(name), skill(name), CHANGE)
    for newest_first in (False, True):
        seen: list[str] = []
        cursor = None
        while True:
            page = registry.list(Skill, TENANT, "SKILL#", limit=2, cursor=cursor, newest_first=newest_first)
            seen += [stored.record.skill for stored in page.items]
            cursor = page.cursor
            if cursor is None:
                break
        assert seen == sorted(names, reverse=newest_first)


def test_a_cursor_of_another_list_is_refused(registry: Whole) -> None:
    for forged in ("%%%", "Uk9VVEUjYQ==", "é"):
        with pytest.raises(InvalidInput) as refused:
            registry.list(Skill, TENANT, "SKILL#", cursor=forged)
        assert refused.value.param == "cursor"


def test_nothing_lies_under_a_name_that_is_longer_than_keys_are(registry: Whole) -> None:
    for long in ("x" * 300, "x" * 3_000):
        with pytest.raises(NotFound):
            registry.get(Skill, TENANT, skill_key(long))
        with pytest.raises(NotFound):
            registry.get_route_for_request(TENANT, long)
        assert not registry.has_skill(TENANT, long)
        assert registry.list(Skill, TENANT, skill_key(long)).items == ()
        with pytest.raises(InvalidInput):
            registry.list(Skill, TENANT, "SKILL#", cursor=encode_cursor(skill_key(long)))


def test_numbers_count_from_one_and_each_sequence_by_itself(registry: Whole) -> None:
    assert [registry.allocate_number(TENANT, SKILL, "policy") for _ in range(3)] == [1, 2, 3]
    assert registry.allocate_number(TENANT, SKILL, "dataset") == 1


def test_a_policy_comes_back_whole_and_cannot_be_overwritten(registry: Whole) -> None:
    registry.put_policy(make_policy(1), CHANGE)
    assert registry.get_policy(TENANT, f"{SKILL}@v1") == make_policy(1)
    with pytest.raises(Conflict):
        registry.put_policy(make_policy(1, user="another prompt"), CHANGE)
    for absent in (f"{SKILL}@v2", "nonsense"):
        with pytest.raises(NotFound):
            registry.get_policy(TENANT, absent)


def test_a_route_is_written_only_over_the_version_expected(registry: Whole) -> None:
    with pytest.raises(NotFound) as absent:
        registry.get_route_for_request(TENANT, SKILL)
    assert absent.value.param == "skill"
    registry.write_route(make_route(), expected_version=0)
    with pytest.raises(Conflict):
        registry.write_route(make_route(), expected_version=0)
    second = make_route(version=2, arms=(make_canary_route(2, 0.1),), last_good=make_route().target)
    registry.write_route(second, expected_version=1)
    with pytest.raises(Conflict):
        registry.write_route(second, expected_version=1)
    assert registry.get_route_for_request(TENANT, SKILL) == registry.get_route(TENANT, SKILL) == second


def rolled_out() -> RouteTarget:
    return RouteTarget(control=f"{SKILL}@v1", arms=(Arm(policy_id=f"{SKILL}@v3", mode="ab", weight=0.25),))


def test_rollback_puts_the_last_good_target_back_under_a_new_version(registry: Whole) -> None:
    registry.write_route(make_route(control=2, last_good=rolled_out(), rollout_id="rol_1"), expected_version=0)
    back = registry.roll_back(TENANT, SKILL, LATER)
    assert back == registry.get_route(TENANT, SKILL)
    assert (back.target, back.mode, back.version) == (rolled_out(), "rolled_back", 2)
    assert (back.changed_by, back.reason, back.changed_at) == (LATER.actor, LATER.reason, LATER.at)


def test_rollback_twice_is_one_rollback(registry: Whole) -> None:
    registry.write_route(make_route(control=2, last_good=rolled_out()), expected_version=0)
    assert registry.roll_back(TENANT, SKILL, LATER) == registry.roll_back(TENANT, SKILL, CHANGE)


def test_a_late_alarm_cannot_roll_another_rollout_back(registry: Whole) -> None:
    current = make_route(control=2, last_good=rolled_out(), rollout_id="rol_2")
    registry.write_route(current, expected_version=0)
    with pytest.raises(Conflict):
        registry.roll_back(TENANT, SKILL, LATER, rollout_id="rol_1")
    assert registry.get_route(TENANT, SKILL) == current
    assert registry.roll_back(TENANT, SKILL, LATER, rollout_id="rol_2").mode == "rolled_back"


def test_rollback_without_a_way_back_changes_nothing(registry: Whole) -> None:
    with pytest.raises(NotFound):
        registry.roll_back(TENANT, SKILL, LATER)
    registry.write_route(make_route(), expected_version=0)
    with pytest.raises(Conflict):
        registry.roll_back(TENANT, SKILL, LATER)
    assert registry.get_route(TENANT, SKILL) == make_route()


def test_a_key_is_found_by_its_id_until_and_after_it_is_revoked(registry: Whole) -> None:
    key, _ = make_key(tenant_id=TENANT, scopes=("infer", "telemetry"), created_at=NOW)
    assert registry.find_key(key.key_id) is None
    registry.create_key(key, CHANGE)
    assert registry.find_key(key.key_id) == key
    with pytest.raises(Conflict):
        registry.create_key(key, CHANGE)
    revoked = registry.revoke_key(TENANT, key.key_id, LATER)
    assert revoked.revoked_at == LATER.at
    assert registry.find_key(key.key_id) == revoked
    assert registry.revoke_key(TENANT, key.key_id, CHANGE) == revoked


def test_a_key_of_another_tenant_cannot_be_revoked(registry: Whole) -> None:
    key, _ = make_key(tenant_id=TENANT, scopes=("infer",), created_at=NOW)
    registry.create_key(key, CHANGE)
    with pytest.raises(NotFound):
        registry.revoke_key("other", key.key_id, LATER)
    assert registry.find_key(key.key_id) == key


def test_what_the_registry_holds_has_the_hash_that_its_stream_tells_the_audit(dynamodb: DynamoDBClient) -> None:
    table = make_table(dynamodb, "registry")
    registry = DynamoRegistry(table, dynamodb)
    registry.put(TENANT, skill_key(SKILL), skill(description="ñ"), CHANGE)
    registry.allocate_number(TENANT, SKILL, "policy")
    [content] = registry.iterate_contents(TENANT)
    [image] = [item for item in dynamodb.scan(TableName=table)["Items"] if item["sk"] == {"S": skill_key(SKILL)}]
    change = read_registry_change({"eventID": "e1", "eventName": "INSERT", "dynamodb": {"NewImage": image}})
    assert change is not None
    assert (content.target, content.version, content.sha256, content.changed_at) == (change.target, 1, change.content_sha256, CHANGE.at)
    gone = read_registry_change({"eventID": "e2", "eventName": "REMOVE", "dynamodb": {"OldImage": image}})
    assert gone is not None
    assert gone.content_sha256 is None
