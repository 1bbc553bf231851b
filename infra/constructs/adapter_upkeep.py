"""The endpoint's upkeep: a schedule and the ends of learning runs -> a function that loads and unloads adapters and
lets the endpoint sleep."""

from aws_cdk import Duration
from aws_cdk import aws_events as rules
from aws_cdk import aws_events_targets as targets
from constructs import Construct

from infra.acknowledge import acknowledge_wildcards
from infra.config import StageConfig
from infra.constructs.learning_pipeline import LearningPipeline
from infra.constructs.python_function import PythonFunction
from infra.constructs.tenant_table import TenantTable
from infra.constructs.vllm_endpoint import ADAPTERS_ARE_DATA, TARGETS_HAVE_NO_NAMES, VllmEndpoint
from rlaas.runtime.environment import AdaptersEnvironment

EVERY = Duration.hours(1)
"""Between two calls; a machine that a failed run kept awake is given back at most that much later."""


class AdapterUpkeep(Construct):
    """The function `reconcile_adapters`."""

    def __init__(
        self, scope: Construct, id: str, *, config: StageConfig, registry: TenantTable, endpoint: VllmEndpoint, learning: LearningPipeline
    ) -> None:
        super().__init__(scope, id)
        machine = learning.state_machine
        self.function = PythonFunction(
            self,
            "Reconcile",
            config=config,
            name="reconcile_adapters",
            description="Loads the adapters that routes name, unloads those that nothing names, lets the endpoint sleep",
            environment=AdaptersEnvironment.model_construct(
                stage=config.name,
                registry_table=registry.table_name,
                endpoint_name=endpoint.endpoint_name,
                learning_state_machine_arn=machine.state_machine_arn,
                scale_to_zero=config.serving.scale_to_zero,
            ),
            timeout=Duration.minutes(10),
        )
        self.function.allow("dynamodb:GetItem", "dynamodb:Query", on=[registry.table_arn])
        self.function.allow("states:ListExecutions", on=[machine.state_machine_arn])
        self.function.allow(
            "sagemaker:CreateInferenceComponent",
            "sagemaker:DescribeInferenceComponent",
            on=endpoint.arns,
            wildcard_because=ADAPTERS_ARE_DATA,
        )
        self.function.allow("sagemaker:DeleteInferenceComponent", on=[endpoint.adapter_arns], wildcard_because=ADAPTERS_ARE_DATA)
        self.function.allow("sagemaker:ListInferenceComponents", on=["*"], wildcard_because="IAM takes no resource for it; it lists names.")
        for statement in endpoint.copies_statements():
            self.function.function.add_to_role_policy(statement)
            acknowledge_wildcards(self, statement.resources, TARGETS_HAVE_NO_NAMES)
        target = targets.LambdaFunction(
            self.function.keep_failed_calls(), dead_letter_queue=learning.failures, retry_attempts=2, max_event_age=Duration.hours(1)
        )
        rules.Rule(self, "Hourly", description="Keep the endpoint's adapters up", schedule=rules.Schedule.rate(EVERY), targets=[target])
        rules.Rule(
            self,
            "RunEnded",
            description="A learning run has ended: let the endpoint sleep when it was the last",
            event_pattern=rules.EventPattern(
                source=["aws.states"],
                detail_type=["Step Functions Execution Status Change"],
                detail={"stateMachineArn": [machine.state_machine_arn], "status": ["SUCCEEDED", "FAILED", "TIMED_OUT", "ABORTED"]},
            ),
            targets=[target],
        )
