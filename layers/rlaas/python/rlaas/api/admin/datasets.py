"""Datasets of a skill: what was learned from."""

from fastapi import APIRouter
from fastapi.responses import JSONResponse

from rlaas.api.admin.answers import ListPage, answer_list
from rlaas.api.admin.call import AdminCall, PageLimit
from rlaas.api.admin.operations import operation
from rlaas.learning.runs import Dataset
from rlaas.tenancy.registry import dataset_prefix

router = APIRouter(prefix="/v1/admin/skills/{skill}/datasets")


class DatasetPage(ListPage[Dataset]):
    """Some of the skill's datasets, the newest first."""


@router.get("", **operation(ok=DatasetPage))
def list_datasets(call: AdminCall, skill: str, limit: PageLimit = 100, cursor: str | None = None) -> JSONResponse:
    return answer_list(call, Dataset, dataset_prefix(skill), limit, cursor)
