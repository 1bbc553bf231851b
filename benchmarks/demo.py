"""The last demo's figures, from out/demo/report.json: run `make demo` first."""

import json
import subprocess
import sys
from pathlib import Path

from benchmarks.result import report

REPORT = Path(__file__).resolve().parent.parent / "out" / "demo" / "report.json"


def main() -> None:
    """Report the figures, if they are this revision's."""
    committed_at = int(subprocess.run(["git", "log", "-1", "--format=%ct"], capture_output=True, text=True, check=True).stdout)
    if not REPORT.exists() or REPORT.stat().st_mtime < committed_at:
        sys.exit(f"{REPORT} is missing or older than the last commit: run `make demo` first")
    demo = json.loads(REPORT.read_text())
    before, after, sft_only, back, events = (demo[name] for name in ("baseline", "candidate", "sft_only", "rollback", "events"))
    report(
        "demo",
        "make demo bench-demo",
        {
            "wall_s": demo["wall_seconds"],
            "win_rate_ratio": demo["win_rate"],
            "win_rate_low_ratio": demo["win_rate_ci"][0],
            "win_rate_high_ratio": demo["win_rate_ci"][1],
            "baseline_edit_similarity_ratio": before["edit_similarity_mean"],
            "candidate_edit_similarity_ratio": after["edit_similarity_mean"],
            "sft_only_held_out_edit_similarity_ratio": sft_only["edit_similarity_mean"],
            "baseline_send_rate_ratio": before["send_rate"],
            "candidate_send_rate_ratio": after["send_rate"],
            "shipped_at_evidence": demo["evidence"]["good"]["better"],
            "taken_back_at_evidence": demo["evidence"]["bad"]["harm"],
            "rollback_s": back["seconds"],
            "rollback_requests": back["requests_during"],
            "rollback_failed_requests": back["failed_requests"],
            "events_sent": events["sent"],
            "events_lost": events["lost"],
        },
    )


if __name__ == "__main__":
    main()
