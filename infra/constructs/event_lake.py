"""Events as Parquet that Athena can query: stream -> lake_writer -> Firehose -> S3, with a table in Glue."""

from aws_cdk import Duration, RemovalPolicy, Stack
from aws_cdk import aws_athena as athena
from aws_cdk import aws_dynamodb as dynamodb
from aws_cdk import aws_glue as glue
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kinesisfirehose as firehose
from aws_cdk import aws_logs as logs
from aws_cdk import aws_s3 as s3
from constructs import Construct

from infra.acknowledge import acknowledge_wildcards
from infra.config import StageConfig
from infra.constructs.failures import Failures
from infra.constructs.private_bucket import PrivateBucket
from infra.constructs.python_function import PythonFunction, add_log_group
from rlaas.runtime.environment import LakeEnvironment

EVENT_TYPES = ("interaction", "output", "feedback", "task_result", "reward", "guardrail", "failure")
"""The values of `event_type`; a test compares them with `rlaas.telemetry.events.EventType`."""

COLUMNS = (
    "tenant_id",
    "event_id",
    "schema_version",
    "skill",
    "interaction_id",
    "output_id",
    "thread_id",
    "policy_id",
    "occurred_at",
    "received_at",
    "payload",
)
"""The table's columns, all strings (times are RFC 3339, `payload` is canonical JSON). Partition keys: event_type,
event_date."""

_FIRST_DAY = "2020-01-01"
_MIB_PER_PARTITION = 64  # the least that Firehose takes with dynamic partitioning and format conversion


def filter_new_events(*event_types: str) -> dict[str, object]:
    """The stream filter that passes new events of these types; the table also contains links to events."""
    return {"eventName": ["INSERT"], "dynamodb": {"NewImage": {"event_type": {"S": list(event_types)}}}}


class EventLake(Construct):
    """The lake's bucket, its table `rlaas_<stage>.events`, its workgroup `rlaas-<stage>`, and what writes to it."""

    def __init__(
        self, scope: Construct, id: str, *, config: StageConfig, events: dynamodb.ITable, failures: Failures, access_logs: s3.IBucket
    ) -> None:
        super().__init__(scope, id)
        self.database_name = f"rlaas_{config.name}"
        self.table_name = "events"
        self.workgroup_name = config.prefix
        self.bucket = PrivateBucket(
            self,
            "Bucket",
            config=config,
            name="lake",
            access_logs=access_logs,
            lifecycle=(
                s3.LifecycleRule(id="answers", prefix="athena/", expiration=Duration.days(7)),
                # Copies of events for learning runs; without a rule for their old versions these would stay for a
                # month.
                s3.LifecycleRule(
                    id="unloaded",
                    prefix="athena/unload/",
                    expiration=Duration.days(1),
                    noncurrent_version_expiration=Duration.days(1),
                ),
                s3.LifecycleRule(
                    id="cold",
                    prefix="events/",
                    transitions=[s3.Transition(storage_class=s3.StorageClass.INTELLIGENT_TIERING, transition_after=Duration.days(30))],
                ),
            ),
        )
        stack = Stack.of(self)
        database = glue.CfnDatabase(
            self,
            "Database",
            catalog_id=stack.account,
            database_input=glue.CfnDatabase.DatabaseInputProperty(name=self.database_name, description="What applications reported"),
        )
        table = self._events_table()
        table.add_resource_dependency(database)
        self.catalog_arns = [
            stack.format_arn(service="glue", resource="catalog"),
            stack.format_arn(service="glue", resource="database", resource_name=self.database_name),
            stack.format_arn(service="glue", resource="table", resource_name=f"{self.database_name}/{self.table_name}"),
        ]
        self.delivery_stream = self._delivery_stream(config, table)
        self.workgroup = self._workgroup(config)
        self.workgroup_arn = stack.format_arn(service="athena", resource="workgroup", resource_name=self.workgroup_name)

        self.writer = PythonFunction(
            self,
            "Writer",
            config=config,
            name="lake_writer",
            description="Sends new events to Firehose, and requests that drew shadows to their queue",
            environment=LakeEnvironment.model_construct(
                stage=config.name,
                delivery_stream=self.delivery_stream.ref,
                failures_bucket=failures.bucket.bucket_name,
            ),
            timeout=Duration.minutes(1),
        )
        self.writer.allow("firehose:PutRecordBatch", on=[self.delivery_stream.attr_arn])
        self.writer.read_stream_of(
            events,
            filters=[filter_new_events(*EVENT_TYPES)],
            batch_size=100,
            batching=Duration.seconds(1),
            failures=failures,
        )

    def _events_table(self) -> glue.CfnTable:
        """The table of the Parquet files under `events/`. Athena computes the partitions from their names (projection),
        so that no crawler has to list them."""
        location = f"s3://{self.bucket.bucket_name}/events/"
        parquet = "org.apache.hadoop.hive.ql.io.parquet"
        return glue.CfnTable(
            self,
            "Table",
            catalog_id=Stack.of(self).account,
            database_name=self.database_name,
            table_input=glue.CfnTable.TableInputProperty(
                name=self.table_name,
                description="Events as delivered: at least once, so readers keep one row per event_id",
                table_type="EXTERNAL_TABLE",
                parameters={
                    "EXTERNAL": "TRUE",
                    "classification": "parquet",
                    "projection.enabled": "true",
                    "projection.event_type.type": "enum",
                    "projection.event_type.values": ",".join(EVENT_TYPES),
                    "projection.event_date.type": "date",
                    "projection.event_date.format": "yyyy-MM-dd",
                    "projection.event_date.range": f"{_FIRST_DAY},NOW+1DAYS",
                    "projection.event_date.interval": "1",
                    "projection.event_date.interval.unit": "DAYS",
                    "storage.location.template": f"{location}event_type=${{event_type}}/event_date=${{event_date}}/",
                },
                partition_keys=[glue.CfnTable.ColumnProperty(name=name, type="string") for name in ("event_type", "event_date")],
                storage_descriptor=glue.CfnTable.StorageDescriptorProperty(
                    columns=[glue.CfnTable.ColumnProperty(name=name, type="string") for name in COLUMNS],
                    location=location,
                    input_format=f"{parquet}.MapredParquetInputFormat",
                    output_format=f"{parquet}.MapredParquetOutputFormat",
                    serde_info=glue.CfnTable.SerdeInfoProperty(serialization_library=f"{parquet}.serde.ParquetHiveSerDe"),
                ),
            ),
        )

    def _delivery_stream(self, config: StageConfig, table: glue.CfnTable) -> firehose.CfnDeliveryStream:
        """The delivery stream: it takes records of many JSON events, and writes Parquet files partitioned by the
        `event_type` and `event_date` of each event.

        It writes records that it can neither partition nor convert under `errors/`, with the reason.
        """
        log = add_log_group(self, "DeliveryLogs", config=config, name=f"/aws/kinesisfirehose/{config.prefix}-events")
        log_stream = logs.LogStream(
            self, "DeliveryLogStream", log_group=log, log_stream_name="delivery", removal_policy=RemovalPolicy.DESTROY
        )
        role = iam.Role(self, "DeliveryRole", assumed_by=iam.ServicePrincipal("firehose.amazonaws.com"))
        files = [self.bucket.objects("events/*"), self.bucket.objects("errors/*")]
        statements = [
            iam.PolicyStatement(actions=["s3:PutObject", "s3:GetObject", "s3:AbortMultipartUpload"], resources=files),
            iam.PolicyStatement(
                actions=["s3:GetBucketLocation", "s3:ListBucket", "s3:ListBucketMultipartUploads"], resources=[self.bucket.bucket_arn]
            ),
            iam.PolicyStatement(actions=["glue:GetTable", "glue:GetTableVersion", "glue:GetTableVersions"], resources=self.catalog_arns),
            iam.PolicyStatement(actions=["logs:PutLogEvents"], resources=[log.log_group_arn]),
        ]
        policy = iam.Policy(self, "DeliveryPolicy", roles=[role], statements=statements)
        acknowledge_wildcards(policy, files, "Firehose names each file itself; it may write only below the two prefixes it delivers to.")
        destination = firehose.CfnDeliveryStream
        stream = destination(
            self,
            "Delivery",
            delivery_stream_name=f"{config.prefix}-events",
            delivery_stream_type="DirectPut",
            delivery_stream_encryption_configuration_input=destination.DeliveryStreamEncryptionConfigurationInputProperty(
                key_type="AWS_OWNED_CMK"
            ),
            extended_s3_destination_configuration=destination.ExtendedS3DestinationConfigurationProperty(
                bucket_arn=self.bucket.bucket_arn,
                role_arn=role.role_arn,
                prefix="events/event_type=!{partitionKeyFromQuery:event_type}/event_date=!{partitionKeyFromQuery:event_date}/",
                error_output_prefix="errors/!{firehose:error-output-type}/!{timestamp:yyyy-MM-dd}/",
                buffering_hints=destination.BufferingHintsProperty(
                    interval_in_seconds=config.lake_buffer_seconds, size_in_m_bs=_MIB_PER_PARTITION
                ),
                cloud_watch_logging_options=destination.CloudWatchLoggingOptionsProperty(
                    enabled=True, log_group_name=log.log_group_name, log_stream_name=log_stream.log_stream_name
                ),
                dynamic_partitioning_configuration=destination.DynamicPartitioningConfigurationProperty(
                    enabled=True, retry_options=destination.RetryOptionsProperty(duration_in_seconds=300)
                ),
                processing_configuration=destination.ProcessingConfigurationProperty(
                    enabled=True,
                    processors=[
                        # The writer packs many events into one record: "If your data is aggregated, dynamic
                        # partitioning can be only be applied if your data is first deaggregated" (developer guide),
                        # here by consecutive JSON objects, 500 a record.
                        destination.ProcessorProperty(
                            type="RecordDeAggregation",
                            parameters=[destination.ProcessorParameterProperty(parameter_name="SubRecordType", parameter_value="JSON")],
                        ),
                        destination.ProcessorProperty(
                            type="MetadataExtraction",
                            parameters=[
                                destination.ProcessorParameterProperty(
                                    parameter_name="MetadataExtractionQuery",
                                    parameter_value="{event_type: .event_type, event_date: .event_date}",
                                ),
                                destination.ProcessorParameterProperty(parameter_name="JsonParsingEngine", parameter_value="JQ-1.6"),
                            ],
                        ),
                    ],
                ),
                data_format_conversion_configuration=destination.DataFormatConversionConfigurationProperty(
                    enabled=True,
                    schema_configuration=destination.SchemaConfigurationProperty(
                        catalog_id=Stack.of(self).account,
                        database_name=self.database_name,
                        table_name=self.table_name,
                        region=Stack.of(self).region,
                        role_arn=role.role_arn,
                        version_id="LATEST",
                    ),
                    input_format_configuration=destination.InputFormatConfigurationProperty(
                        deserializer=destination.DeserializerProperty(open_x_json_ser_de=destination.OpenXJsonSerDeProperty())
                    ),
                    output_format_configuration=destination.OutputFormatConfigurationProperty(
                        serializer=destination.SerializerProperty(parquet_ser_de=destination.ParquetSerDeProperty(compression="SNAPPY"))
                    ),
                ),
            ),
        )
        stream.add_resource_dependency(table)
        stream.node.add_dependency(policy)
        return stream

    def _workgroup(self, config: StageConfig) -> athena.CfnWorkGroup:
        """The workgroup: it refuses queries above the stage's scan limit; their results are kept for a week."""
        group = athena.CfnWorkGroup
        return group(
            self,
            "Workgroup",
            name=self.workgroup_name,
            description="Queries of the lake",
            recursive_delete_option=not config.keep_data,
            work_group_configuration=group.WorkGroupConfigurationProperty(
                bytes_scanned_cutoff_per_query=config.athena_scan_limit_gib * 1024**3,
                enforce_work_group_configuration=True,
                publish_cloud_watch_metrics_enabled=True,
                engine_version=group.EngineVersionProperty(selected_engine_version="Athena engine version 3"),
                result_configuration=group.ResultConfigurationProperty(
                    output_location=f"s3://{self.bucket.bucket_name}/athena/",
                    encryption_configuration=group.EncryptionConfigurationProperty(encryption_option="SSE_S3"),
                ),
            ),
        )
