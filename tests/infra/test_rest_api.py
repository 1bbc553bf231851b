"""Which authorizer asks for the key of which path."""

from functions.authorizer.handler import API_KEY_PATHS
from tests.infra.template import Resource, Template


def test_a_key_may_stand_in_another_header_only_where_no_answer_of_the_authorizer_is_remembered(templates: list[Template]) -> None:
    for template in templates:
        if template.stack != "api":
            continue
        resources = template.resources("AWS::ApiGateway::Resource")
        authorizers = template.resources("AWS::ApiGateway::Authorizer")
        paths: dict[str, set[str]] = {name: set() for name in authorizers}
        for method in template.resources("AWS::ApiGateway::Method").values():
            if "AuthorizerId" in method["Properties"]:
                paths[method["Properties"]["AuthorizerId"]["Ref"]].add(_path(method["Properties"]["ResourceId"]["Ref"], resources))
        [uncached] = [name for name, authorizer in authorizers.items() if "IdentitySource" not in authorizer["Properties"]]
        assert authorizers[uncached]["Properties"]["AuthorizerResultTtlInSeconds"] == 0
        assert paths.pop(uncached) == API_KEY_PATHS
        [cached] = paths
        assert authorizers[cached]["Properties"]["IdentitySource"] == "method.request.header.Authorization"


def _path(resource: str, resources: dict[str, Resource]) -> str:
    properties = resources[resource]["Properties"]
    parent = properties["ParentId"].get("Ref")
    return (_path(parent, resources) if parent else "") + "/" + properties["PathPart"]
