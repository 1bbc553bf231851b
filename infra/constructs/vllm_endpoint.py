"""The vLLM endpoint with one base model; adapters are data, and are loaded and unloaded while it runs."""

from aws_cdk import Duration, Stack
from aws_cdk import aws_applicationautoscaling as autoscaling
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_cloudwatch_actions as actions
from aws_cdk import aws_iam as iam
from aws_cdk import aws_sagemaker as sagemaker
from constructs import Construct

from infra.config import StageConfig
from infra.constructs.image_repository import ImageRepository
from infra.constructs.private_bucket import PrivateBucket
from infra.constructs.python_function import add_log_group
from infra.constructs.sagemaker_role import SageMakerRole
from rlaas.ids import METRICS_NAMESPACE, make_base_component_name

VARIANT = "all"
ADAPTERS_ARE_DATA = "Adapters are named rlaas-<stage>--<tenant>--<skill>--vN when a learning run makes them."

TARGETS_HAVE_NO_NAMES = "Application Auto Scaling makes up the ids of scalable targets; a condition holds it to inference components."
_DIMENSION = "sagemaker:inference-component:DesiredCopyCount"
# A reservation and not a limit: a copy may use more while the instance has more. SageMaker places no copy that reserves
# more than the instance has left beside its agents, and one GPU for each copy already limits the copies of an instance.
RESERVED_CORES = 1
RESERVED_MIB = 1_024


class VllmEndpoint(Construct):
    """Endpoint `rlaas-<stage>` with the base inference component `rlaas-<stage>--base`.

    An adapter is another inference component, named by `rlaas.ids.make_adapter_name` and made by a learning run; it
    needs no machine of its own.
    """

    def __init__(self, scope: Construct, id: str, *, config: StageConfig, artifacts: PrivateBucket, images: ImageRepository) -> None:
        super().__init__(scope, id)
        serving = config.serving
        stack = Stack.of(self)
        self.endpoint_name = config.prefix
        self.component_name = make_base_component_name(self.endpoint_name)
        self.base_model = serving.base_model
        image = images.image(serving.image_tag)

        role = SageMakerRole(
            self,
            "Role",
            description="What the vLLM container may do",
            images=images,
            log_groups=[f"/aws/sagemaker/{kind}/{self.endpoint_name}*" for kind in ("Endpoints", "InferenceComponents")],
        )
        role.allow(
            "s3:GetObject",
            on=[artifacts.objects("models/*"), artifacts.objects("tenants/*/runs/*")],
            wildcard_because="Base models and adapters are data.",
        )
        role.allow("s3:ListBucket", on=[artifacts.bucket_arn])

        model = sagemaker.CfnModel(
            self,
            "Model",
            execution_role_arn=role.role_arn,
            # No network and no credentials: SageMaker downloads the model and each adapter, and passes requests on.
            enable_network_isolation=True,
            primary_container=sagemaker.CfnModel.ContainerDefinitionProperty(
                image=image,
                model_data_source=sagemaker.CfnModel.ModelDataSourceProperty(
                    s3_data_source=sagemaker.CfnModel.S3DataSourceProperty(
                        s3_uri=artifacts.s3_url_for_object(f"models/{serving.base_model}/"),
                        s3_data_type="S3Prefix",
                        compression_type="None",
                    )
                ),
                environment={f"SM_VLLM_{name.upper()}": value for name, value in serving.vllm},
            ),
        )
        model.node.add_dependency(role.policy)

        configuration = sagemaker.CfnEndpointConfig
        endpoint_config = configuration(
            self,
            "Config",
            execution_role_arn=role.role_arn,
            production_variants=[
                configuration.ProductionVariantProperty(
                    variant_name=VARIANT,
                    instance_type=serving.instance_type,
                    inference_ami_version=serving.system.ami if serving.system else None,
                    initial_instance_count=1,
                    managed_instance_scaling=configuration.ManagedInstanceScalingProperty(
                        status="ENABLED", min_instance_count=0 if serving.scale_to_zero else 1, max_instance_count=serving.max_instances
                    ),
                    routing_config=configuration.RoutingConfigProperty(routing_strategy="LEAST_OUTSTANDING_REQUESTS"),
                    container_startup_health_check_timeout_in_seconds=1_800,
                    model_data_download_timeout_in_seconds=1_800,
                )
            ],
        )
        endpoint_config.node.add_dependency(role.policy)
        endpoint = sagemaker.CfnEndpoint(
            self, "Endpoint", endpoint_name=self.endpoint_name, endpoint_config_name=endpoint_config.attr_endpoint_config_name
        )
        # Made before SageMaker makes them, which would keep lines for ever; an adapter logs to its base model's group.
        for kind, name in (("Endpoints", self.endpoint_name), ("InferenceComponents", self.component_name)):
            endpoint.node.add_dependency(add_log_group(self, f"{kind}Logs", config=config, name=f"/aws/sagemaker/{kind}/{name}"))

        component = sagemaker.CfnInferenceComponent
        self.base = component(
            self,
            "Base",
            inference_component_name=self.component_name,
            endpoint_name=endpoint.attr_endpoint_name,
            variant_name=VARIANT,
            specification=component.InferenceComponentSpecificationProperty(
                model_name=model.attr_model_name,
                compute_resource_requirements=component.InferenceComponentComputeResourceRequirementsProperty(
                    number_of_accelerator_devices_required=serving.accelerators or None,
                    number_of_cpu_cores_required=RESERVED_CORES,
                    min_memory_required_in_mb=RESERVED_MIB,
                ),
                startup_parameters=component.InferenceComponentStartupParametersProperty(
                    container_startup_health_check_timeout_in_seconds=1_800, model_data_download_timeout_in_seconds=1_800
                ),
            ),
            runtime_config=component.InferenceComponentRuntimeConfigProperty(copy_count=1),
        )
        self.endpoint_arn = stack.format_arn(service="sagemaker", resource="endpoint", resource_name=self.endpoint_name)
        self.adapter_arns = stack.format_arn(
            service="sagemaker", resource="inference-component", resource_name=f"{self.endpoint_name}--*--v*"
        )
        """The ARN pattern of this stage's adapters, and of no other stage's: their names are data
        (`rlaas.ids.make_adapter_name`)."""
        self.base_arn = stack.format_arn(service="sagemaker", resource="inference-component", resource_name=self.component_name)
        self.arns = [self.endpoint_arn, self.base_arn, self.adapter_arns]
        """The ARNs of the endpoint, its base component and its adapters, for IAM policies."""
        self.scale_to_zero = serving.scale_to_zero
        if serving.scale_to_zero:
            self._scale(config)

    def copies_statements(self) -> list[iam.PolicyStatement]:
        """What IAM must allow to set the least number of copies of the base model; nothing where it never sleeps."""
        if not self.scale_to_zero:
            return []
        targets = Stack.of(self).format_arn(service="application-autoscaling", resource="scalable-target", resource_name="*")
        conditions = {"application-autoscaling:service-namespace": "sagemaker", "application-autoscaling:scalable-dimension": _DIMENSION}
        return [
            iam.PolicyStatement(
                actions=["application-autoscaling:RegisterScalableTarget"], resources=[targets], conditions={"StringEquals": conditions}
            ),
            # Application Auto Scaling checks that the caller who registers a target has the rights to scale it.
            iam.PolicyStatement(
                actions=["sagemaker:DescribeInferenceComponent", "sagemaker:UpdateInferenceComponentRuntimeConfig"],
                resources=[self.base_arn],
            ),
        ]

    def _scale(self, config: StageConfig) -> None:
        """Scale the copies of the base model with the requests in flight, down to none. Then the first refused request
        starts a copy.

        The gateway emits the metric of refused requests (`rlaas.runtime.waking`), because SageMaker's own metric has
        the name of the adapter that was asked. While the copy starts, more requests are refused, so the action sets the
        number of copies to one and does not add one each minute.
        """
        target = autoscaling.ScalableTarget(
            self,
            "Copies",
            service_namespace=autoscaling.ServiceNamespace.SAGEMAKER,
            resource_id=f"inference-component/{self.component_name}",
            scalable_dimension=_DIMENSION,
            min_capacity=0,
            max_capacity=config.serving.max_instances,
        )
        target.node.add_dependency(self.base)
        target.scale_to_track_metric(
            "RequestsInFlight",
            target_value=8,
            predefined_metric=autoscaling.PredefinedMetric.SAGEMAKER_INFERENCE_COMPONENT_CONCURRENT_REQUESTS_PER_COPY_HIGH_RESOLUTION,
        )
        wake = autoscaling.StepScalingAction(
            self,
            "Wake",
            scaling_target=target,
            adjustment_type=autoscaling.AdjustmentType.EXACT_CAPACITY,
            metric_aggregation_type=autoscaling.MetricAggregationType.MAXIMUM,
            cooldown=Duration.minutes(1),
        )
        wake.add_adjustment(adjustment=1, lower_bound=0)
        alarm = cloudwatch.Metric(
            namespace=METRICS_NAMESPACE,
            metric_name="NoCapacity",
            dimensions_map={"stage": config.name},
            statistic="Sum",
            period=Duration.minutes(1),
        ).create_alarm(
            self,
            "Asleep",
            alarm_name=f"{config.prefix}-asleep",
            alarm_description="Requests find no copy of the model: wakes one",
            threshold=1,
            comparison_operator=cloudwatch.ComparisonOperator.GREATER_THAN_OR_EQUAL_TO_THRESHOLD,
            evaluation_periods=1,
            treat_missing_data=cloudwatch.TreatMissingData.NOT_BREACHING,
        )
        alarm.add_alarm_action(actions.ApplicationScalingAction(wake))
