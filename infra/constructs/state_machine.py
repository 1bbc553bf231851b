"""A state machine written in `infra/state_machines/<name>.asl.json`."""

import json
from collections.abc import Mapping

from aws_cdk import Duration
from aws_cdk import aws_events as events
from aws_cdk import aws_events_targets as targets
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_sqs as sqs
from aws_cdk import aws_stepfunctions as sfn
from constructs import Construct

from infra.acknowledge import acknowledge
from infra.config import StageConfig
from infra.constructs.python_function import PythonFunction, add_log_group
from infra.state_machines.definitions import read_definition


class StateMachine(sfn.StateMachine):
    """The standard state machine `rlaas-<stage>-<name>`; `substitutions` fill the definition's `${...}`.

    Executions are logged without their data: the log line has their ids, and the rest may be personal data.
    """

    def __init__(self, scope: Construct, id: str, *, config: StageConfig, name: str, substitutions: Mapping[str, str]) -> None:
        super().__init__(
            scope,
            id,
            state_machine_name=f"{config.prefix}-{name}",
            definition_body=sfn.DefinitionBody.from_string(json.dumps(read_definition(name), indent=2)),
            definition_substitutions=dict(substitutions),
            logs=sfn.LogOptions(
                destination=add_log_group(scope, f"{id}Logs", config=config, name=f"/aws/vendedlogs/states/{config.prefix}-{name}"),
                level=sfn.LogLevel.ALL,
                include_execution_data=False,
            ),
            tracing_enabled=True,
        )
        acknowledge(
            self,
            "Log delivery and X-Ray take no resource: their actions can only be allowed on all, as AWS's guides for both say.",
            "AwsSolutions-IAM5[Resource::*]",
        )

    def allow_invoke(self, function: lambda_.IFunction) -> None:
        """Allow the states to call `function`, as the definition names it, without a version."""
        self.add_to_role_policy(iam.PolicyStatement(actions=["lambda:InvokeFunction"], resources=[function.function_arn]))

    def close_by(self, function: PythonFunction, *, failures: sqs.IQueue) -> None:
        """Call `function` with every execution that failed, timed out or was stopped by hand.

        An execution that is ended from outside runs no Catch of its own; without this call its record would say
        `running` for ever.
        """
        events.Rule(
            self,
            "Stopped",
            description="An execution ended without its last state: close its record",
            event_pattern=events.EventPattern(
                source=["aws.states"],
                detail_type=["Step Functions Execution Status Change"],
                detail={"stateMachineArn": [self.state_machine_arn], "status": ["FAILED", "TIMED_OUT", "ABORTED"]},
            ),
            targets=[
                targets.LambdaFunction(
                    function.keep_failed_calls(), dead_letter_queue=failures, retry_attempts=10, max_event_age=Duration.hours(1)
                )
            ],
        )
