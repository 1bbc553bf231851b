"""The CDK's command line runs the app as a fresh checkout has it."""

import json
import os
import subprocess

from tests.laptop_cloud import ROOT


def test_the_command_of_cdk_json_finds_all_that_the_app_imports() -> None:
    command = json.loads((ROOT / "cdk.json").read_text())["app"].replace(" app.py", " -c 'import app'")
    bare = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    ran = subprocess.run(command, shell=True, cwd=ROOT, env=bare, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
