"""The audit: what a change left behind is in its entry."""

from tests.laptop_cloud import SKILL, LaptopCloud, until


def test_each_entry_has_the_hash_of_what_the_change_left_and_the_chain_holds(cloud: LaptopCloud) -> None:
    tenant = cloud.tenant()
    for number in range(2):
        tenant.admin("PUT", f"skills/{SKILL}", {"description": f"edition {number}", "reason": "the same"})

    def entries_if_both() -> list[dict[str, object]]:
        entries = [one for one in tenant.admin("GET", "audit")["data"] if one["target"] == f"SKILL#{SKILL}"]
        return entries if len(entries) == 2 else []

    first, second = until(entries_if_both)
    assert len({first["content_sha256"], second["content_sha256"]}) == 2
    assert tenant.admin("GET", "audit")["chain"]["intact"] is True
