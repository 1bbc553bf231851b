"""The stack of the API that applications call."""

from aws_cdk import CfnOutput, Duration
from constructs import Construct

from infra.config import StageConfig
from infra.constructs.adapter_upkeep import AdapterUpkeep
from infra.constructs.answering_function import KEYS_ARE_DATA, AnsweringFunction, make_vendor_keys_arn
from infra.constructs.entity_finder import EntityFinder
from infra.constructs.guarded_rollout import GUARDS_ARE_DATA, GuardedRollout
from infra.constructs.learning_pipeline import LearningPipeline
from infra.constructs.lent_role import GrantRole
from infra.constructs.python_function import PythonFunction
from infra.constructs.redrive import Redrive
from infra.constructs.rest_api import PublicApi
from infra.constructs.vllm_endpoint import ADAPTERS_ARE_DATA, VllmEndpoint
from infra.stacks.data import DataStack
from infra.stacks.rlaas_stack import RlaasStack
from rlaas.runtime import paths
from rlaas.runtime.environment import API_GATEWAY_SECONDS, AdminEnvironment, RegistryEnvironment, TelemetryEnvironment


class ApiStack(RlaasStack):
    """The REST API with its authorizer and its functions, and the function that makes the first key."""

    def __init__(
        self,
        scope: Construct,
        *,
        config: StageConfig,
        data: DataStack,
        endpoint: VllmEndpoint,
        finder: EntityFinder,
        learning: LearningPipeline,
        upkeep: AdapterUpkeep,
        rollout: GuardedRollout,
    ) -> None:
        super().__init__(scope, "api", config=config)
        self.authorizer = self._authorizer(data)
        self.telemetry = self._telemetry(data, finder)
        self.inference = AnsweringFunction(
            self,
            "Inference",
            config=config,
            registry=data.registry,
            events=data.events,
            counters=data.counters,
            endpoint=endpoint,
            finder=finder,
            name="inference",
            description="Decides which policy answers, asks it, stores both",
            timeout=Duration.seconds(API_GATEWAY_SECONDS),
        )
        GrantRole(self, "ModelGrants", endpoint=endpoint, lender=self.inference)
        stream_time = Duration.seconds(config.api.stream_seconds)
        self.chat = AnsweringFunction(
            self,
            "Chat",
            config=config,
            registry=data.registry,
            events=data.events,
            counters=data.counters,
            endpoint=endpoint,
            finder=finder,
            name="chat",
            description="The same for OpenAI's and Anthropic's clients, whole or streamed",
            timeout=stream_time,
            web_server=True,
        )
        self.redrive = Redrive(
            self,
            "Redrive",
            config=config,
            failures=data.failures,
            lake=data.lake,
            shadows=data.shadow_queue,
            consumers=[
                *(data.lake.writer, data.reward_writer, data.audit_writer),
                *(learning.steps, upkeep.function, rollout.steps, rollout.guard),
            ],
            in_order=data.audit_writer,
        )
        self.admin = self._admin(data, endpoint, learning, rollout)
        self.bootstrap = self._bootstrap(data)

        self.public = PublicApi(self, "Api", config=config, authorizer=self.authorizer.target)
        self.public.route(paths.INFERENCE_PATHS, self.inference.target)
        self.public.route(paths.MODEL_PATHS, self.inference.target)
        self.public.route(paths.ABSENT_PATHS, self.inference.target)
        self.public.route(paths.CHAT_PATHS, self.chat.target, streams_for=stream_time)
        self.public.route(paths.MESSAGES_PATHS, self.chat.target, streams_for=stream_time, by_api_key=True)
        self.public.route(paths.TELEMETRY_PATHS, self.telemetry.target)
        self.public.route(paths.ADMIN_PATHS, self.admin.target)
        self.public.route(paths.OTHER_PATHS, self.inference.target)
        CfnOutput(self, "ApiId", value=self.public.api.rest_api_id)
        CfnOutput(self, "ApiUrl", value=self.public.api.url)
        CfnOutput(self, "BootstrapFunction", value=self.bootstrap.function.function_name)

    def _authorizer(self, data: DataStack) -> PythonFunction:
        function = PythonFunction(
            self,
            "AuthorizerFunction",
            config=self.config,
            name="authorizer",
            description="Authenticates callers: looks up a key by its id",
            environment=RegistryEnvironment.model_construct(stage=self.config.name, registry_table=data.registry.table_name),
            timeout=Duration.seconds(5),
            user_facing=True,
            reserved_concurrency=100,
        )
        # Only the authorizer's copies of keys, and no records of tenants.
        function.allow(
            "dynamodb:GetItem",
            on=[data.registry.table_arn],
            conditions={"ForAllValues:StringLike": {"dynamodb:LeadingKeys": ["KEY#*"]}},
        )
        return function

    def _telemetry(self, data: DataStack, finder: EntityFinder) -> PythonFunction:
        function = PythonFunction(
            self,
            "Telemetry",
            config=self.config,
            name="telemetry",
            description="Records interactions, outputs, feedback and task results, one or many at once",
            environment=TelemetryEnvironment.model_construct(
                stage=self.config.name,
                registry_table=data.registry.table_name,
                events_table=data.events.table_name,
                event_ttl_days=self.config.event_ttl_days,
                counters_table=data.counters.table_name,
                tenant_requests_per_second=self.config.api.tenant_rate_per_second,
                find_entities_function=finder.target.function_arn,
                find_entities_at_once=self.config.privacy.at_once,
            ),
            timeout=Duration.seconds(API_GATEWAY_SECONDS),  # long texts, in which names must be found, take most of it
            user_facing=True,
        )
        function.allow("dynamodb:GetItem", "dynamodb:Query", on=[data.registry.table_arn])  # a tenant's limits are queried
        function.allow("dynamodb:GetItem", "dynamodb:BatchGetItem", "dynamodb:PutItem", on=[data.events.table_arn])
        function.allow("dynamodb:UpdateItem", on=[data.counters.table_arn])  # the tenants' rates
        finder.serve(function)
        return function

    def _admin(self, data: DataStack, endpoint: VllmEndpoint, learning: LearningPipeline, rollout: GuardedRollout) -> PythonFunction:
        function = PythonFunction(
            self,
            "Admin",
            config=self.config,
            name="admin",
            description="Tenants, keys, skills, policies, routes, learning runs, rollouts, audit",
            environment=AdminEnvironment.model_construct(
                stage=self.config.name,
                registry_table=data.registry.table_name,
                events_table=data.events.table_name,
                event_ttl_days=self.config.event_ttl_days,
                audit_table=data.audit.table_name,
                counters_table=data.counters.table_name,
                tenant_requests_per_second=self.config.api.tenant_rate_per_second,
                allowed_models=self.config.allowed_models,
                endpoint_name=endpoint.endpoint_name,
                base_model=endpoint.base_model,
                learning_state_machine_arn=learning.state_machine.state_machine_arn,
                rollout_state_machine_arn=rollout.state_machine.state_machine_arn,
                redrive_function=self.redrive.function.target.function_arn,
                learning_settings=dict(self.config.learning.settings),
                rollout_settings=dict(self.config.rollout.settings),
            ),
            timeout=Duration.seconds(API_GATEWAY_SECONDS),
            memory_mib=1_024,
            reserved_concurrency=20,
        )
        function.allow(
            "dynamodb:GetItem",
            "dynamodb:PutItem",
            "dynamodb:UpdateItem",
            "dynamodb:Query",
            "dynamodb:Scan",  # lists tenants, for the platform's operators
            on=[data.registry.table_arn],
        )
        function.allow("dynamodb:Query", on=[data.events.index_arn("by_day"), data.audit.table_arn])
        function.allow(
            *("dynamodb:GetItem", "dynamodb:BatchGetItem", "dynamodb:Query", "dynamodb:UpdateItem"), on=[data.counters.table_arn]
        )  # usage; the tenants' rates
        function.allow("dynamodb:BatchGetItem", "dynamodb:UpdateItem", on=[data.events.table_arn])  # settles what was pending
        function.allow("cloudwatch:DescribeAlarms", "cloudwatch:DeleteAlarms", on=[rollout.guard_alarms], wildcard_because=GUARDS_ARE_DATA)
        function.allow(
            "sagemaker:CreateInferenceComponent",
            "sagemaker:DescribeInferenceComponent",
            on=endpoint.arns,
            wildcard_because=ADAPTERS_ARE_DATA,
        )
        function.allow("sagemaker:ListInferenceComponents", on=["*"], wildcard_because="It lists names; IAM takes no resource for it.")
        function.allow(
            "secretsmanager:GetSecretValue", on=[make_vendor_keys_arn(self, self.config)], wildcard_because=KEYS_ARE_DATA
        )  # a policy may send a secret only to hosts that it names
        function.allow("lambda:InvokeFunction", on=[self.redrive.function.target.function_arn])
        function.allow("states:StartExecution", on=[learning.state_machine.state_machine_arn, rollout.state_machine.state_machine_arn])
        return function

    def _bootstrap(self, data: DataStack) -> PythonFunction:
        """The function that makes the first tenant and key; it is called by `lambda:Invoke` only, as far as IAM
        allows."""
        function = PythonFunction(
            self,
            "Bootstrap",
            config=self.config,
            name="bootstrap",
            description="Makes a tenant with a key and returns the key once; for operators, by lambda:Invoke",
            environment=RegistryEnvironment.model_construct(stage=self.config.name, registry_table=data.registry.table_name),
            timeout=Duration.seconds(10),
        )
        function.allow("dynamodb:GetItem", "dynamodb:PutItem", "dynamodb:UpdateItem", on=[data.registry.table_arn])
        return function
