"""A function that answers requests by asking models."""

from aws_cdk import Duration, Stack
from constructs import Construct

from infra.config import StageConfig
from infra.constructs.entity_finder import EntityFinder
from infra.constructs.python_function import PythonFunction
from infra.constructs.tenant_table import TenantTable
from infra.constructs.vllm_endpoint import ADAPTERS_ARE_DATA, VllmEndpoint
from rlaas.runtime.environment import AnsweringEnvironment

MODELS_ARE_DATA = "Policies name their Bedrock models, guardrails and regions; a policy is made through the admin API, and audited."
KEYS_ARE_DATA = "Tenants' vendor keys are named rlaas/<stage>/<tenant>/<name> when they are made; the adapter binds the tenant."


def make_vendor_keys_arn(scope: Construct, config: StageConfig) -> str:
    """The ARN of the secrets with tenants' vendor keys."""
    stack = Stack.of(scope)
    return f"arn:{stack.partition}:secretsmanager:{stack.region}:{stack.account}:secret:rlaas/{config.name}/*"


class AnsweringFunction(PythonFunction):
    """A function with all that it takes to answer: access to routes and policies, prices and budgets, the events, and
    every backend."""

    def __init__(
        self,
        scope: Construct,
        id: str,
        *,
        config: StageConfig,
        registry: TenantTable,
        events: TenantTable,
        counters: TenantTable,
        endpoint: VllmEndpoint,
        finder: EntityFinder,
        name: str,
        description: str,
        timeout: Duration,
        user_facing: bool = True,
        web_server: bool = False,
    ) -> None:
        super().__init__(
            scope,
            id,
            config=config,
            name=name,
            description=description,
            environment=AnsweringEnvironment.model_construct(
                stage=config.name,
                registry_table=registry.table_name,
                events_table=events.table_name,
                event_ttl_days=config.event_ttl_days,
                counters_table=counters.table_name,
                tenant_requests_per_second=config.api.tenant_rate_per_second,
                allowed_models=config.allowed_models,
                base_model=endpoint.base_model,
                find_entities_function=finder.target.function_arn,
                find_entities_at_once=config.privacy.at_once,
                function_seconds=int(timeout.to_seconds()),
                reservation_seconds=config.api.reservation_seconds or int(timeout.to_seconds()),
            ),
            timeout=timeout,
            memory_mib=768,  # it waits for a model most of the time, and each GiB is paid for while it waits
            user_facing=user_facing,
            web_server=web_server,
        )
        self.allow("dynamodb:GetItem", "dynamodb:Query", on=[registry.table_arn])  # the newest prices are queried
        self.allow("dynamodb:GetItem", "dynamodb:BatchGetItem", "dynamodb:UpdateItem", on=[counters.table_arn])
        self.allow("dynamodb:GetItem", "dynamodb:BatchGetItem", "dynamodb:PutItem", on=[events.table_arn])
        finder.serve(self)
        # InvokeEndpointWithResponseStream is allowed by the same action.
        self.allow("sagemaker:InvokeEndpoint", on=endpoint.arns, wildcard_because=ADAPTERS_ARE_DATA)
        # Converse and ConverseStream are allowed by these two actions.
        self.allow(
            "bedrock:InvokeModel", "bedrock:InvokeModelWithResponseStream", on=self._bedrock_models(), wildcard_because=MODELS_ARE_DATA
        )
        stack = Stack.of(self)
        guardrails = f"arn:{stack.partition}:bedrock:*:{stack.account}:guardrail/*"
        self.allow("bedrock:ApplyGuardrail", on=[guardrails], wildcard_because=MODELS_ARE_DATA)
        self.allow("secretsmanager:GetSecretValue", on=[make_vendor_keys_arn(self, config)], wildcard_because=KEYS_ARE_DATA)

    def _bedrock_models(self) -> list[str]:
        """The ARNs of what a policy may name: models, and the account's profiles, which lead to models in other
        regions."""
        stack = Stack.of(self)
        profiles = [
            f"arn:{stack.partition}:bedrock:*:{stack.account}:{kind}/*" for kind in ("inference-profile", "application-inference-profile")
        ]
        return [f"arn:{stack.partition}:bedrock:*::foundation-model/*", *profiles]
