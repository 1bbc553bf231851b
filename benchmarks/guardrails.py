"""What guardrails find and cost: recall and precision of the rules on labelled prompts and answers, microseconds per
check.

    python -m benchmarks.guardrails [--external FILE.jsonl]

The labelled prompts are `benchmarks.injection_set`, the labelled answers `benchmarks.refusal_set`, which the rules were
written beside. `--external` measures the rules for injections on sets from elsewhere as well, one JSON object a line
with `text`, `attack` (true or false) and `set`; their figures are kept apart, under `guardrails_external`.
"""

import argparse
import json
import time
from collections import Counter
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

from benchmarks.injection_set import Prompt, prompts
from benchmarks.refusal_set import DRAFTS, REFUSALS
from benchmarks.result import percentile, report
from rlaas.chat import Message
from rlaas.policies.guardrails.checks import check_input, check_output
from rlaas.policies.guardrails.guardrail_list import Guardrails
from rlaas.policies.guardrails.injection import Injection
from rlaas.policies.guardrails.injection_signals import rate_suspicion
from rlaas.policies.guardrails.refusal import REFUSED, rate_refusal

THRESHOLD = Injection().threshold
MAIL = (
    "Hello, I am writing about order 48213, a washing machine that was delivered to our office in Leeds on Tuesday. The "
    "instructions for the installation are hard to follow, the previous ones were clearer. Could you send me the right ones, "
    "and tell me what happened to the second box? You can write to ada.park@customer.example or call +44 20 7946 0958 after "
    "five. Please ignore my previous email. Kind regards, Ada Park"
)
ANSWER = (
    "Dear Ada, thank you for writing to us. The second box of order 48213 left our warehouse this morning and arrives on "
    "Friday. The right instructions for the installation are attached. If anything is unclear, call us. Kind regards, Sam"
)
WORDS = [f"rival{number} brand{number % 7}" for number in range(1000)]
CHECKS: dict[str, tuple[str, list[dict[str, object]]]] = {
    "injection": ("input", [{"kind": "injection"}]),
    "pii": ("input", [{"kind": "pii"}]),
    "block_list_1000_terms": ("input", [{"kind": "block_list", "terms": WORDS}]),
    "input_of_all_kinds": (
        "input",
        [
            {"kind": "size", "max_tokens": 8000},
            {"kind": "pii"},
            {"kind": "block_list", "terms": WORDS, "patterns": [r"\bC-\d{6}\b"]},
            {"kind": "injection"},
            {"kind": "topics", "denied": [{"name": "politics", "terms": ["election", "parliament"]}]},
        ],
    ),
    "pii_leak": ("output", [{"kind": "pii_leak"}]),
    "refusal": ("output", [{"kind": "refusal"}]),
    "groundedness": ("output", [{"kind": "groundedness"}]),
    "output_of_all_kinds": (
        "output",
        [{"kind": "pii_leak"}, {"kind": "block_list", "terms": WORDS}, {"kind": "refusal"}, {"kind": "groundedness"}],
    ),
}
ROUNDS = 400


def quality(labelled: Iterable[Prompt]) -> dict[str, float]:
    """Recall, precision and false positive rate at the default threshold, and recall by sort of attack."""
    hits, counts = Counter[tuple[bool, str]](), Counter[tuple[bool, str]]()
    for prompt in labelled:
        counts[prompt.attack, prompt.sort] += 1
        hits[prompt.attack, prompt.sort] += rate_suspicion(prompt.text).score >= THRESHOLD
    attacks, benign = ([key for key in counts if key[0] is kind] for kind in (True, False))
    right, wrong = sum(hits[key] for key in attacks), sum(hits[key] for key in benign)
    figures: dict[str, float] = {"attacks": sum(counts[key] for key in attacks), "benign": sum(counts[key] for key in benign)}
    if attacks:
        figures["recall_ratio"] = right / figures["attacks"]
    if attacks and benign:
        figures["precision_ratio"] = right / (right + wrong)
    if benign:
        figures["false_positive_ratio"] = wrong / figures["benign"]
    return figures | {
        f"{key[1]}_{'recall' if key[0] else 'false_positive'}_ratio": hits[key] / counts[key] for key in sorted(counts, reverse=True)
    }


def refusal_quality() -> dict[str, float]:
    """Recall on refusals and false positive rate on ordinary drafts, at the default threshold."""
    hits, wrong = (sum(rate_refusal(text) >= REFUSED for text in texts) for texts in (REFUSALS, DRAFTS))
    return {
        "refusals": len(REFUSALS),
        "drafts": len(DRAFTS),
        "refusal_recall_ratio": hits / len(REFUSALS),
        "refusal_false_positive_ratio": wrong / len(DRAFTS),
    }


def microseconds(run: Callable[[], object]) -> float:
    """Median of `ROUNDS` runs, of the processor's time."""
    run()
    samples = []
    for _ in range(ROUNDS):
        start = time.process_time()
        run()
        samples.append((time.process_time() - start) * 1e6)
    return percentile(samples, 0.5)


def cost() -> dict[str, float]:
    """Microseconds per check of an email of about 480 characters, or of its answer."""
    figures = {}
    messages = [Message(role="system", content="You answer customers."), Message(role="user", content=MAIL)]
    for name, (stage, guards) in CHECKS.items():
        config = Guardrails.model_validate_json(json.dumps({stage: guards}))
        if stage == "input":
            figures[f"{name}_us"] = microseconds(partial(check_input, config, messages))
        else:
            figures[f"{name}_us"] = microseconds(partial(check_output, config, ANSWER, messages=messages, documents=[MAIL]))
    book = (MAIL + "\n") * 100
    figures["injection_us_per_kb"] = microseconds(lambda: rate_suspicion(book)) / len(book) * 1000
    return figures


def main() -> None:
    """Print the table and keep it."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--external", type=Path, help="labelled prompts from elsewhere, JSON lines")
    external: Path | None = arguments.parse_args().external
    report("guardrails", "make bench-guardrails", {**quality(prompts()), **refusal_quality(), **cost()})
    if external is not None:
        lines = [json.loads(line) for line in external.read_text(encoding="utf-8").splitlines()]
        sets = sorted({line["set"] for line in lines})
        figures: dict[str, float] = {}
        for name in sets:
            quality_of_set = quality(Prompt(line["text"], line["attack"], "all") for line in lines if line["set"] == name)
            figures |= {f"{name}_{figure}": value for figure, value in quality_of_set.items() if not figure.startswith("all_")}
        report("guardrails_external", "python -m benchmarks.guardrails --external FILE.jsonl", figures)


if __name__ == "__main__":
    main()
