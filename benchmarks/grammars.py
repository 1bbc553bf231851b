"""How long the largest schemas that the shared endpoint accepts block it: compiling one, and a token's mask, by the
library that it uses (llguidance) and by vLLM's default (xgrammar). Runs in the serving environment, on the tokenizer of
the laptop's base model.
"""

import json
import sys
import time
from collections.abc import Iterator
from typing import Any

import llguidance.hf
import numpy as np
import xgrammar
from llguidance import LLMatcher
from llguidance.numpy import allocate_token_bitmask, fill_next_token_bitmask
from transformers import AutoTokenizer

from benchmarks.result import report
from containers.vllm.one_door import check_chat

STEPS = 60
Schema = dict[str, Any]


def schemas() -> Iterator[tuple[str, Schema]]:
    """(name, schema): the largest that the endpoint accepts, each in another way, and some that applications send."""
    text = {"type": "string"}
    yield "reply_of_500_characters", _object({"subject": {**text, "maxLength": 80}, "body": {**text, "maxLength": 500}})
    yield "uuid", {**text, "pattern": "^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$"}
    yield "properties", {"type": "object", "properties": {f"p{at}": text for at in range(2_200)}, "additionalProperties": False}
    yield "choices", {"anyOf": [_object({f"a{at}": text}) for at in range(500)]}
    yield "counts", _object({f"p{at}": {"type": "array", "items": text, "maxItems": 400} for at in range(49)})
    yield "nested_counts", {"type": "array", "maxItems": 9_999, "items": {"type": "array", "maxItems": 9_999, "items": text}}
    yield "multiples", _object({f"p{at}": {"type": "integer", "multipleOf": 9_900 + at} for at in range(2)})
    yield "texts", {"enum": [chr(97 + at % 26) * 950 + str(at) for at in range(60)]}
    yield "pattern", {**text, "pattern": "((.*a.{12}){0,20}b.{0,30}){3}"}
    yield "pattern_of_any", {**text, "pattern": ".*a.{500}b.{500}"}


def figures(model: str) -> dict[str, float]:
    """Seconds to compile and the longest mask in milliseconds, by library and schema; and the worst of llguidance's."""
    tokenizer = AutoTokenizer.from_pretrained(model)
    guidance, information = llguidance.hf.from_tokenizer(tokenizer), xgrammar.TokenizerInfo.from_huggingface(tokenizer)
    results: dict[str, float] = {"vocabulary": float(guidance.vocab_size)}
    for name, schema in schemas():
        form = {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}
        check_chat(json.dumps({"messages": [], "response_format": form}).encode())
        results[f"{name}_compile_s"], results[f"{name}_mask_ms"] = _by_guidance(guidance, schema)
    worst = {f"worst_{unit}": max(value for name, value in results.items() if name.endswith(unit)) for unit in ("compile_s", "mask_ms")}
    for name, schema in schemas():
        if name in ("reply_of_500_characters", "uuid", "choices"):
            start = time.process_time()
            xgrammar.GrammarCompiler(information, max_threads=1, cache_enabled=False).compile_json_schema(json.dumps(schema))
            results[f"xgrammar_{name}_compile_s"] = time.process_time() - start
    return {**results, **worst}


def _object(properties: Schema) -> Schema:
    return {"type": "object", "properties": properties, "required": [*properties], "additionalProperties": False}


def _by_guidance(tokenizer: Any, schema: Schema) -> tuple[float, float]:
    start = time.process_time()
    matcher = LLMatcher(tokenizer, LLMatcher.grammar_from_json_schema(json.dumps(schema)))
    compile_s, longest = time.process_time() - start, 0.0
    mask = allocate_token_bitmask(1, tokenizer.vocab_size)
    for _ in range(STEPS):
        if matcher.get_error() or matcher.is_stopped():
            break
        start = time.process_time()
        fill_next_token_bitmask(matcher, mask)
        longest = max(longest, time.process_time() - start)
        tokens = np.flatnonzero(np.unpackbits(mask.view(np.uint8), bitorder="little"))
        if not len(tokens):
            break
        matcher.consume_token(int(tokens[len(tokens) // 2]))
    return compile_s, longest * 1000


if __name__ == "__main__":
    report("grammars", "make bench-grammars", figures(sys.argv[1]))
