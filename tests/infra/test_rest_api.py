"""Which authorizer asks for the key of which path, what is answered without one, and how bodies are handed on."""

from functions.authorizer.handler import API_KEY_PATHS
from infra.constructs.rest_api import ANY_METHOD
from rlaas.runtime.paths import ABSENT_PATHS, ADMIN_PATHS, METHODS, OTHER_PATHS
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


def test_options_is_answered_on_every_path_and_pages_may_send_what_vendors_clients_send(templates: list[Template]) -> None:
    for template in templates:
        if template.stack != "api":
            continue
        resources = template.resources("AWS::ApiGateway::Resource")
        methods: dict[str, dict[str, Resource]] = {}
        for method in template.resources("AWS::ApiGateway::Method").values():
            path = _path(method["Properties"]["ResourceId"]["Ref"], resources)
            methods.setdefault(path, {})[method["Properties"]["HttpMethod"]] = method["Properties"]["Integration"]
        assert methods.keys() == {*METHODS, *ABSENT_PATHS, *ADMIN_PATHS, *OTHER_PATHS}
        for path, integrations in methods.items():
            mock = integrations.pop("OPTIONS")
            assert integrations.keys() == set(METHODS.get(path, ["ANY"]))
            assert mock["ContentHandling"] == "CONVERT_TO_TEXT"  # API Gateway takes a body of no type for JSON, which it hands on as bytes
            [answer] = mock["IntegrationResponses"]
            headers = {name.rpartition(".")[2]: value for name, value in answer["ResponseParameters"].items()}
            assert headers["Allow"] == f"'{', '.join((*METHODS.get(path, ANY_METHOD), 'OPTIONS'))}'"
            assert headers["X-Request-Id"] == "context.requestId"
            assert ("Access-Control-Allow-Origin" in headers) == (path not in ADMIN_PATHS)
            if path not in ADMIN_PATHS:
                assert headers["Access-Control-Allow-Methods"] == headers["Allow"]
                assert {"authorization", "*", "x-api-key"} <= set(headers["Access-Control-Allow-Headers"].strip("'").lower().split(", "))


def test_bodies_come_to_functions_as_the_bytes_that_were_sent(templates: list[Template]) -> None:
    apis = [api["Properties"] for template in templates for api in template.resources("AWS::ApiGateway::RestApi").values()]
    assert apis
    assert all(api["BinaryMediaTypes"] == ["application/json"] for api in apis)


def test_what_api_gateway_answers_by_itself_has_an_id_and_pages_may_read_it(templates: list[Template]) -> None:
    answers = [
        answer["Properties"]["ResponseParameters"]
        for template in templates
        for answer in template.resources("AWS::ApiGateway::GatewayResponse").values()
    ]
    assert answers
    for headers in answers:
        assert headers["gatewayresponse.header.X-Request-Id"] == headers["gatewayresponse.header.Request-Id"] == "context.requestId"
        assert headers["gatewayresponse.header.Access-Control-Allow-Origin"] == "'*'"
        assert "Retry-After" in headers["gatewayresponse.header.Access-Control-Expose-Headers"]


def _path(resource: str, resources: dict[str, Resource]) -> str:
    properties = resources[resource]["Properties"]
    parent = properties["ParentId"].get("Ref")
    return (_path(parent, resources) if parent else "") + "/" + properties["PathPart"]
