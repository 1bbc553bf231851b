"""A job of the local SageMaker, told by its arguments or hyperparameters what to do."""

import json
import os
import pathlib
import sys
import time

root = pathlib.Path(os.environ.get("RLAAS_ML_ROOT", "/opt/ml"))
settings = root / "input/config/hyperparameters.json"
wanted = json.loads(settings.read_text()) if settings.exists() else dict(word.split("=", 1) for word in sys.argv[1:])
print("loss=0.25", flush=True)
if wanted.get("do") == "sleep":
    time.sleep(600)
if wanted.get("do") == "talk":
    print("nothing much\n" * 20_000, flush=True)
if wanted.get("do") == "fail":
    if "reason" in wanted:
        for name in ("failure", "message"):
            (root / "output" / name).write_text(wanted["reason"] * int(wanted.get("times", 1)), encoding=wanted.get("encoding", "utf-8"))
    sys.exit("ValueError: the data is empty")
if settings.exists():
    assert os.environ["SM_MODEL_DIR"] == str(root / "model")
    channel = root / "input/data/train"
    assert os.environ["SM_CHANNEL_TRAIN"] == str(channel)
    (root / "model/weights").write_text("".join(sorted(path.read_text() for path in channel.rglob("*") if path.is_file())))
    (root / "output/data/report.json").write_text(json.dumps({**wanted, "credentials": "AWS_ACCESS_KEY_ID" in os.environ}))
else:
    source, target = root / "processing/input/data", root / "processing/output/data"
    for path in filter(pathlib.Path.is_file, source.rglob("*")):
        (target / path.name).write_text(path.read_text().upper())
