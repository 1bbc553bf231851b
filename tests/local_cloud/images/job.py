"""A job of the local SageMaker whose arguments or hyperparameters say what it does."""

import json
import os
import pathlib
import sys
import time

root = pathlib.Path(os.environ.get("RLAAS_ML_ROOT", "/opt/ml"))
settings = root / "input/config/hyperparameters.json"
parameters = json.loads(settings.read_text()) if settings.exists() else dict(word.split("=", 1) for word in sys.argv[1:])
print("loss=0.25", flush=True)
if parameters.get("do") == "sleep":
    time.sleep(600)
if parameters.get("do") == "talk":
    print("nothing much\n" * 20_000, flush=True)
if parameters.get("do") == "fail":
    if "reason" in parameters:
        for name in ("failure", "message"):
            (root / "output" / name).write_text(
                parameters["reason"] * int(parameters.get("times", 1)), encoding=parameters.get("encoding", "utf-8")
            )
    sys.exit("ValueError: the data is empty")
if settings.exists():
    assert os.environ["SM_MODEL_DIR"] == str(root / "model")
    channel = root / "input/data/train"
    assert os.environ["SM_CHANNEL_TRAIN"] == str(channel)
    (root / "model/weights").write_text("".join(sorted(path.read_text() for path in channel.rglob("*") if path.is_file())))
    (root / "output/data/report.json").write_text(json.dumps({**parameters, "credentials": "AWS_ACCESS_KEY_ID" in os.environ}))
else:
    source, target = root / "processing/input/data", root / "processing/output/data"
    for path in filter(pathlib.Path.is_file, source.rglob("*")):
        (target / path.name).write_text(path.read_text().upper())
