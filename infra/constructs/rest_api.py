"""The public REST API. The gateway's own refusals have the service's error body, too.

Its one stage is called `api` and its paths begin with `/v1`, so that functions see the same path behind `<url>/api` and
behind a custom domain.
"""

import json
from collections.abc import Sequence

from aws_cdk import Duration, RemovalPolicy
from aws_cdk import aws_apigateway as apigateway
from aws_cdk import aws_lambda as lambda_
from constructs import Construct

from infra.acknowledge import acknowledge
from infra.config import StageConfig
from infra.constructs.firewall import Firewall
from infra.constructs.python_function import add_log_group
from rlaas.runtime.paths import ADMIN_PATHS, EXPOSED_HEADERS, METHODS

# The refusals of API Gateway itself, before it calls a function: its response type, status (None: as API Gateway sets
# it), our error type and code, and the message where API Gateway's own would mislead.
_GATEWAY_ERRORS: tuple[tuple[str, int | None, str, str, str | None], ...] = (
    ("DEFAULT_4XX", None, "InvalidInput", "invalid_input", None),
    ("DEFAULT_5XX", None, "InternalError", "internal_error", "something went wrong on our side; the request id finds it in the log"),
    ("UNAUTHORIZED", 401, "Unauthorized", "unauthorized", "send a valid key: Authorization: Bearer rlk_..., or to /v1/messages x-api-key"),
    ("ACCESS_DENIED", 403, "Forbidden", "forbidden", None),
    ("WAF_FILTERED", 403, "Forbidden", "forbidden", "the firewall refused the request"),
    ("MISSING_AUTHENTICATION_TOKEN", 404, "NotFound", "not_found", "there is no such path and method"),
    ("RESOURCE_NOT_FOUND", 404, "NotFound", "not_found", "there is no such path and method"),
    ("REQUEST_TOO_LARGE", 413, "PayloadTooLarge", "payload_too_large", "the body is larger than the service takes"),
    ("UNSUPPORTED_MEDIA_TYPE", 415, "InvalidInput", "invalid_input", "the content type must be application/json"),
    ("THROTTLED", 429, "QuotaExceeded", "quota_exceeded", "too many requests; try again later"),
    ("QUOTA_EXCEEDED", 429, "QuotaExceeded", "quota_exceeded", "too many requests; try again later"),
    ("INTEGRATION_FAILURE", 503, "DependencyUnavailable", "dependency_unavailable", "the service could not answer; try again"),
    ("INTEGRATION_TIMEOUT", 503, "DependencyUnavailable", "dependency_unavailable", "the service took too long; try again"),
)

_STAGE = "api"
ANY_METHOD = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
_COMMON_HEADERS = {
    "Access-Control-Allow-Origin": "'*'",
    "Access-Control-Expose-Headers": f"'{EXPOSED_HEADERS}'",
    "X-Request-Id": "context.requestId",
    "Request-Id": "context.requestId",
}
_PREFLIGHT_HEADERS = {
    # The star stands for every header but Authorization, such as those that vendors' clients add; browsers that do not
    # know it read the names.
    "Access-Control-Allow-Headers": "'Authorization, Content-Type, Idempotency-Key, X-Api-Key, Anthropic-Version, Traceparent, *'",
    "Access-Control-Max-Age": "'86400'",
}
_ACCESS_LOG = {
    "request_id": "$context.requestId",
    "tenant_id": "$context.authorizer.tenant_id",
    "key_id": "$context.authorizer.key_id",
    "method": "$context.httpMethod",
    "path": "$context.resourcePath",
    "status": "$context.status",
    "bytes": "$context.responseLength",
    "latency_ms": "$context.responseLatency",
    "integration_latency_ms": "$context.integrationLatency",
    "authorizer_latency_ms": "$context.authorizer.latency",
    "error": "$context.error.responseType",
    "source_ip": "$context.identity.sourceIp",
}


class PublicApi(Construct):
    """A regional API Gateway with our authorizer on every route and, where the stage has one, a firewall in front."""

    def __init__(self, scope: Construct, id: str, *, config: StageConfig, authorizer: lambda_.IFunction) -> None:
        super().__init__(scope, id)
        access_log = add_log_group(self, "AccessLog", config=config, name=f"/aws/apigateway/{config.prefix}-access")
        self.api = apigateway.RestApi(
            self,
            "Rest",
            rest_api_name=config.prefix,
            description=f"RLaaS {config.name}",
            endpoint_types=[apigateway.EndpointType.REGIONAL],
            # Bodies come to the functions as the bytes that were sent. As text, what is packed would be destroyed, and
            # a byte that is no UTF-8 would become a character that nobody sent.
            binary_media_types=["application/json"],
            cloud_watch_role=True,
            cloud_watch_role_removal_policy=RemovalPolicy.RETAIN if config.keep_data else RemovalPolicy.DESTROY,
            deploy_options=apigateway.StageOptions(
                stage_name=_STAGE,
                throttling_rate_limit=config.api.rate_per_second,
                throttling_burst_limit=config.api.burst,
                metrics_enabled=False,  # those of the stage are free; those of each method would be billed as some 100 custom metrics
                logging_level=apigateway.MethodLoggingLevel.ERROR,
                data_trace_enabled=False,
                access_log_destination=apigateway.LogGroupLogDestination(access_log),
                access_log_format=apigateway.AccessLogFormat.custom(json.dumps(_ACCESS_LOG)),
            ),
        )
        # API Gateway logs its errors to a group of this name, and makes one without an expiry if there is none when the
        # stage is made.
        error_log = add_log_group(self, "ErrorLog", config=config, name=f"API-Gateway-Execution-Logs_{self.api.rest_api_id}/{_STAGE}")
        self.api.deployment_stage.node.add_dependency(error_log)
        self._authorizer = apigateway.RequestAuthorizer(
            self,
            "Authorizer",
            handler=authorizer,
            identity_sources=[apigateway.IdentitySource.header("Authorization")],
            results_cache_ttl=Duration.seconds(config.api.authorizer_ttl_seconds),
        )
        # API Gateway asks a cached authorizer only when every one of its identity sources is there; without a cache it
        # needs none, and either header may be missing (decision 42).
        self._uncached_authorizer = apigateway.RequestAuthorizer(
            self, "UncachedAuthorizer", handler=authorizer, identity_sources=[], results_cache_ttl=Duration.seconds(0)
        )
        resource = self._uncached_authorizer.node.default_child
        assert isinstance(resource, apigateway.CfnAuthorizer)
        resource.add_property_deletion_override("IdentitySource")  # which CDK makes an empty text
        for response_type, status, error_type, code, message in _GATEWAY_ERRORS:
            self.api.add_gateway_response(
                response_type.title().replace("_", ""),
                type=apigateway.ResponseType.of(response_type),
                status_code=None if status is None else str(status),
                response_headers=_COMMON_HEADERS,
                templates={"application/json": _error_body(error_type, code, message)},
            )
        acknowledge(
            self.api,
            "The functions validate bodies against their pydantic models and name the field at fault; API Gateway's validator cannot.",
            "AwsSolutions-APIG2",
        )
        acknowledge(
            self.api,
            "API Gateway's account-wide log role uses the policy AWS made for exactly that; its log groups' names hold the API's id.",
            "AwsSolutions-IAM4[Policy::arn:<AWS::Partition>:iam::aws:policy/service-role/AmazonAPIGatewayPushToCloudWatchLogs]",
        )
        if config.api.firewall:
            Firewall(
                self,
                "Firewall",
                config=config,
                stage=self.api.deployment_stage,
                too_large_body=_firewall_body("PayloadTooLarge", "payload_too_large", "the body is larger than the service takes"),
                too_many_body=_firewall_body("QuotaExceeded", "quota_exceeded", "too many requests; try again later"),
            )
        else:
            acknowledge(
                self.api,
                "The laptop cloud listens on 127.0.0.1 only. A stage for trying things holds nothing that a firewall would protect: every "
                "request needs a key, and API Gateway's limits bound what floods it (decision 23).",
                "AwsSolutions-APIG3",
            )

    def route(
        self, paths: Sequence[str], function: lambda_.IFunction, *, streams_for: Duration | None = None, by_api_key: bool = False
    ) -> None:
        """Send each of `paths` to `function`, for callers with a key: by its methods in `METHODS`, or by any.

        With `streams_for`, the response of the function, which must stream, is passed on as it comes, for at most that
        long. `by_api_key` takes the key in `x-api-key`, too.
        """
        integration = apigateway.LambdaIntegration(
            function,
            scope_permission_to_method=False,
            response_transfer_mode=apigateway.ResponseTransferMode.STREAM if streams_for else None,
            timeout=streams_for,
        )
        for path in paths:
            resource = self.api.root.resource_for_path(path)
            self._answer_options(resource, METHODS.get(path, ANY_METHOD), from_browsers=path not in ADMIN_PATHS)
            for method in METHODS.get(path, ("ANY",)):
                api_method = resource.add_method(
                    method,
                    integration,
                    authorizer=self._uncached_authorizer if by_api_key else self._authorizer,
                    authorization_type=apigateway.AuthorizationType.CUSTOM,
                )
                acknowledge(
                    api_method,
                    "Callers have our own hashed, scoped keys, which the Lambda authorizer checks; there are no user pools.",
                    "AwsSolutions-COG4",
                )

    def _answer_options(self, resource: apigateway.Resource, methods: Sequence[str], *, from_browsers: bool) -> None:
        """Answer OPTIONS with the methods that there are and, with `from_browsers`, what a browser asks before a page
        calls.

        Pages of every origin may call: access depends on a key in a header and not on a cookie, and a publishable key
        names its own origins. Browsers send no key with the question.
        """
        offered = f"'{', '.join((*methods, 'OPTIONS'))}'"
        headers = {"Allow": offered, "X-Request-Id": "context.requestId"}
        if from_browsers:
            headers |= {**_COMMON_HEADERS, **_PREFLIGHT_HEADERS, "Access-Control-Allow-Methods": offered}
        by_parameter = {f"method.response.header.{name}": value for name, value in headers.items()}
        # Bodies are handed on as bytes, which a mock cannot read (binary_media_types).
        as_text = apigateway.ContentHandling.CONVERT_TO_TEXT
        answer = apigateway.IntegrationResponse(status_code="204", response_parameters=by_parameter, content_handling=as_text)
        method = resource.add_method(
            "OPTIONS",
            apigateway.MockIntegration(
                request_templates={"application/json": '{"statusCode": 204}'}, content_handling=as_text, integration_responses=[answer]
            ),
            authorization_type=apigateway.AuthorizationType.NONE,
            method_responses=[
                apigateway.MethodResponse(status_code="204", response_parameters=dict.fromkeys(by_parameter, True)),
            ],
        )
        acknowledge(method, "A preflight carries no credentials, by the Fetch standard.", "AwsSolutions-APIG4", "AwsSolutions-COG4")


def _error_body(error_type: str, code: str, message: str | None) -> str:
    """The template of an error body; without `message`, with API Gateway's own, which comes quoted."""
    quoted = json.dumps(message) if message else "$context.error.messageString"
    return (
        f'{{"error": {{"type": "{error_type}", "code": "{code}", "message": {quoted}, "param": null, "request_id": "$context.requestId"}}}}'
    )


def _firewall_body(error_type: str, code: str, message: str) -> str:
    """An error body of the firewall, which has no request id."""
    return json.dumps({"error": {"type": error_type, "code": code, "message": message, "param": None, "request_id": None}})
