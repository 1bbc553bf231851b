"""One SDK process of the chaos benchmark: reports events until it has reported its share and its spool is empty, or is
killed.

It imports nothing but the SDK, since it is started anew after each kill.
"""

from __future__ import annotations

import os
import struct
import sys
import time

from rlaas_sdk import Client

SKILL = "support-email-draft"
OWNER = "chaos"
PAUSE_S = 0.05
"""Pause after each interaction's four events."""


def report_events(url: str, key: str, spool: str, progress: str, events: int, *, durable: bool) -> None:
    """Report events up to number `events`, from the number in the file `progress`, where the process before was
    killed."""
    client = Client(url, key, spool=spool, owner=OWNER, durable=durable)
    file = os.open(progress, os.O_RDWR)
    (number,) = struct.unpack("q", os.pread(file, 8, 0))
    interaction = output = ""
    while number < events:
        number += 1
        os.pwrite(file, struct.pack("q", number), 0)
        step = number % 4
        if step == 1 or not interaction:
            interaction = client.log_interaction(SKILL, inputs={"email": f"Where is parcel {number}?"}, thread_id=f"thread-{number}")
            output = ""
        elif step == 2 or not output:
            output = client.log_output(SKILL, interaction, f"Parcel {number} is on its way.")
        elif step == 3:
            client.submit_feedback(SKILL, output_id=output, final_text=f"Parcel {number} comes tomorrow.")
        else:
            client.task_result(SKILL, interaction, "resolved", True)
            time.sleep(PAUSE_S)
    while not client.flush(10):
        pass


if __name__ == "__main__":
    api_url, api_key, spool_file, progress_file, share, kind = sys.argv[1:]
    report_events(api_url, api_key, spool_file, progress_file, int(share), durable=kind == "durable")
