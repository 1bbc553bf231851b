"""What the laptop cloud supposes of the stage `local`."""

from infra.config import LOCAL
from local import cloud, deployment


def test_the_laptop_cloud_uploads_the_base_model_that_the_stage_serves() -> None:
    assert LOCAL.serving.base_model == cloud.BASE_MODEL


def test_the_laptop_cloud_deploys_the_stage_by_its_name_and_region() -> None:
    assert (LOCAL.id, LOCAL.region) == (deployment.STAGE, deployment.REGION)
