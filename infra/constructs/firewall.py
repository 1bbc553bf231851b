"""A WAF web ACL in front of a REST API's stage."""

from aws_cdk import aws_apigateway as apigateway
from aws_cdk import aws_wafv2 as wafv2
from constructs import Construct

from infra.config import StageConfig

# Rules of AWS's groups that read bodies as if they were web forms. RLaaS's bodies are customers' e-mails and prompts
# (markup, links, any length), so these rules only count; the functions validate the bodies against their models. A
# refusal would also block the SDK that sent the event: it sends later events only after that one.
_COUNTED_ONLY = ("SizeRestrictions_BODY", "CrossSiteScripting_BODY", "GenericRFI_BODY", "GenericLFI_BODY", "EC2MetaDataSSRF_BODY")
# Back ends often send no User-Agent: many HTTP clients in Go, Rust and the shell leave it out, and it proves nothing.
_HEADERS_COUNTED_ONLY = ("NoUserAgent_HEADER",)
_INPUTS_COUNTED_ONLY = ("Log4JRCE_BODY", "JavaDeserializationRCE_BODY")

# A Content-Length of 4,600,000 bytes or more, which in base64 is more than Lambda takes. A batch and a conversation may
# have 4 MiB and an event 256 KiB, which the functions check exactly; this rule saves the cost of larger bodies. WAF
# itself can measure only the first 64 KiB of a body.
_LARGE_BODY = r"^(4[6-9][0-9]{5}|[5-9][0-9]{6}|[1-9][0-9]{7,})$"
_WINDOW_S = 300


class Firewall(Construct):
    """AWS's managed rules for common exploits, known bad inputs and bad addresses; rate limits; no huge bodies.

    Rates are averages over five minutes, which WAF checks about every ten seconds. A key may send as much as its tenant
    may, and an address as much as the whole API takes, since all back ends of a company and all pages of its users may
    have one address. So the limit per address only stops floods of requests without a valid key. The functions enforce
    the exact limit per tenant, which is the only one for keys in `x-api-key` (decision 42).
    """

    def __init__(
        self, scope: Construct, id: str, *, config: StageConfig, stage: apigateway.Stage, too_large_body: str, too_many_body: str
    ) -> None:
        """`too_large_body` and `too_many_body` are the JSON bodies of the answers 413 and 429."""
        super().__init__(scope, id)
        acl = wafv2.CfnWebACL
        managed_groups = [
            ("AWSManagedRulesAmazonIpReputationList", ()),
            ("AWSManagedRulesCommonRuleSet", (*_COUNTED_ONLY, *_HEADERS_COUNTED_ONLY)),
            ("AWSManagedRulesKnownBadInputsRuleSet", _INPUTS_COUNTED_ONLY),
        ]
        rules = [
            self._rate_rule(
                "RatePerKey",
                priority=0,
                per_second=config.api.tenant_rate_per_second,
                aggregate_key_type="CUSTOM_KEYS",
                custom_keys=[acl.RateBasedStatementCustomKeyProperty(header=_header("authorization"))],
            ),
            self._rate_rule("RatePerAddress", priority=1, per_second=config.api.rate_per_second, aggregate_key_type="IP"),
            acl.RuleProperty(
                name="LargeBody",
                priority=2,
                statement=acl.StatementProperty(
                    regex_match_statement=acl.RegexMatchStatementProperty(
                        field_to_match=acl.FieldToMatchProperty(single_header={"Name": "content-length"}),
                        regex_string=_LARGE_BODY,
                        text_transformations=[acl.TextTransformationProperty(priority=0, type="NONE")],
                    )
                ),
                action=acl.RuleActionProperty(
                    block=acl.BlockActionProperty(
                        custom_response=acl.CustomResponseProperty(response_code=413, custom_response_body_key="too_large")
                    )
                ),
                visibility_config=_visible("LargeBody"),
            ),
            *(
                acl.RuleProperty(
                    name=group,
                    priority=priority,
                    statement=acl.StatementProperty(
                        managed_rule_group_statement=acl.ManagedRuleGroupStatementProperty(
                            vendor_name="AWS",
                            name=group,
                            rule_action_overrides=[
                                acl.RuleActionOverrideProperty(name=rule, action_to_use=acl.RuleActionProperty(count={}))
                                for rule in counted_only
                            ]
                            or None,
                        )
                    ),
                    override_action=acl.OverrideActionProperty(none={}),
                    visibility_config=_visible(group),
                )
                for priority, (group, counted_only) in enumerate(managed_groups, start=3)
            ),
        ]
        web_acl = acl(
            self,
            "WebAcl",
            name=f"{config.prefix}-api",
            scope="REGIONAL",
            default_action=acl.DefaultActionProperty(allow={}),
            rules=rules,
            custom_response_bodies={
                key: acl.CustomResponseBodyProperty(content_type="APPLICATION_JSON", content=body)
                for key, body in (("too_large", too_large_body), ("too_many", too_many_body))
            },
            visibility_config=_visible("Api"),
        )
        wafv2.CfnWebACLAssociation(self, "Association", resource_arn=stage.stage_arn, web_acl_arn=web_acl.attr_arn)

    def _rate_rule(
        self,
        name: str,
        *,
        priority: int,
        per_second: int,
        aggregate_key_type: str,
        custom_keys: list[wafv2.CfnWebACL.RateBasedStatementCustomKeyProperty] | None = None,
    ) -> wafv2.CfnWebACL.RuleProperty:
        """A rule that answers 429 to a sender of more than `per_second` on average over five minutes."""
        acl = wafv2.CfnWebACL
        return acl.RuleProperty(
            name=name,
            priority=priority,
            statement=acl.StatementProperty(
                rate_based_statement=acl.RateBasedStatementProperty(
                    limit=per_second * _WINDOW_S,
                    aggregate_key_type=aggregate_key_type,
                    custom_keys=custom_keys,
                    evaluation_window_sec=_WINDOW_S,
                )
            ),
            action=acl.RuleActionProperty(
                block=acl.BlockActionProperty(
                    custom_response=acl.CustomResponseProperty(
                        response_code=429,
                        custom_response_body_key="too_many",
                        response_headers=[acl.CustomHTTPHeaderProperty(name="Retry-After", value="30")],
                    )
                )
            ),
            visibility_config=_visible(name),
        )


def _header(name: str) -> wafv2.CfnWebACL.RateLimitHeaderProperty:
    """Count requests by the value of a header, without transforming it."""
    acl = wafv2.CfnWebACL
    return acl.RateLimitHeaderProperty(name=name, text_transformations=[acl.TextTransformationProperty(priority=0, type="NONE")])


def _visible(metric: str) -> wafv2.CfnWebACL.VisibilityConfigProperty:
    """Count matches as `metric`, and keep no sampled requests, which would contain parts of users' texts."""
    return wafv2.CfnWebACL.VisibilityConfigProperty(cloud_watch_metrics_enabled=True, metric_name=metric, sampled_requests_enabled=False)
