"""What a query of the lake may cost."""

from infra.config import STAGES
from tests.infra.template import Template


def test_athena_refuses_queries_above_the_stages_limit_whatever_the_client_asks_for(templates: list[Template]) -> None:
    limits = {config.id: config.athena_scan_limit_gib * 1024**3 for config in STAGES}
    actual = {}
    for template in templates:
        for resource in template.resources("AWS::Athena::WorkGroup").values():
            settings = resource["Properties"]["WorkGroupConfiguration"]
            assert settings["EnforceWorkGroupConfiguration"]
            actual[template.stage] = settings["BytesScannedCutoffPerQuery"]
    assert actual == limits
