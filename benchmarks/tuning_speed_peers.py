"""The peers of tuning_speed.py, in their own environment: python tuning_speed_peers.py peft|trl HF_FOLDER TASK.json"""

from __future__ import annotations

import json
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

try:
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer
except ImportError:
    sys.exit(f"{sys.argv[0]}: run it by the Python of an environment that has torch, transformers, peft and trl\n{__doc__}")

PROJECTIONS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
NOT_LEARNED = -100


def rows_of(batch: list[Any], eos: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Ids, mask and labels, padded at the end: all [B, T]."""
    width = max(len(prompt) + len(answer) for prompt, answer in batch)
    ids = torch.full((len(batch), width), eos)
    mask, labels = torch.zeros_like(ids), torch.full_like(ids, NOT_LEARNED)
    for row, (prompt, answer) in enumerate(batch):
        stop = len(prompt) + len(answer)
        ids[row, :stop], mask[row, :stop] = torch.tensor(prompt + answer), 1
        labels[row, len(prompt) : stop] = torch.tensor(answer)
    return ids, mask, labels


def loss_of(model: Any, batch: list[Any], eos: int) -> tuple[torch.Tensor, int, int]:
    """Summed loss of the answers, logits only there; the number of their tokens; of answers whose every token is the likeliest."""
    ids, mask, labels = rows_of(batch, eos)
    hidden = model.model(input_ids=ids, attention_mask=mask).last_hidden_state
    where = labels[:, 1:] != NOT_LEARNED
    logits = model.lm_head(hidden[:, :-1][where])
    right = torch.ones_like(where)
    right[where] = logits.argmax(-1) == labels[:, 1:][where]
    loss = torch.nn.functional.cross_entropy(logits, labels[:, 1:][where], reduction="sum")
    return loss, int(where.sum()), int(right.all(1).sum())


def held_out(model: Any, task: dict[str, Any]) -> dict[str, float]:
    """Mean loss of an answer token, and the part of the answers that are right throughout."""
    total = count = right = 0.0
    with torch.no_grad():
        for start in range(0, len(task["held_out"]), 32):
            loss, number, whole = loss_of(model, task["held_out"][start : start + 32], task["eos"])
            total, count, right = total + float(loss), count + number, right + whole
    return {"held_out_loss": total / count, "held_out_accuracy": right / len(task["held_out"])}


def peft(folder: str, task: dict[str, Any]) -> dict[str, Any]:
    """A plain loop, stronger than a trainer's defaults: logits only where there is loss, rows of like length."""
    config = LoraConfig(r=task["rank"], lora_alpha=2 * task["rank"], target_modules=PROJECTIONS, task_type="CAUSAL_LM")
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32), config)
    base = model.get_base_model()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], task["rate"], weight_decay=0.0)
    steps = len(task["batches"])
    tokens, started = 0, time.perf_counter()
    for step, batch in enumerate(task["batches"]):
        if task.get("falling"):  # to nothing at the end, after ten steps of rising
            optimizer.param_groups[0]["lr"] = task["rate"] * min((step + 1) / 10, 1 - step / steps)
        loss, number, _ = loss_of(base, batch, task["eos"])
        (loss / number).backward()
        optimizer.step()
        optimizer.zero_grad()
        tokens += sum(len(prompt) + len(answer) for prompt, answer in batch)
    return {"tokens": tokens, "seconds": time.perf_counter() - started, **held_out(base, task)}


def trl(folder: str, task: dict[str, Any]) -> dict[str, Any]:
    """SFTTrainer with its defaults and the same adapter, on as many lessons."""
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    lessons = [pair for batch in task["batches"] for pair in batch]
    rows = [{"input_ids": prompt + answer, "completion_mask": [0] * len(prompt) + [1] * len(answer)} for prompt, answer in lessons]
    config = LoraConfig(r=task["rank"], lora_alpha=2 * task["rank"], target_modules=PROJECTIONS, task_type="CAUSAL_LM")
    with tempfile.TemporaryDirectory() as output:
        arguments = SFTConfig(output_dir=output, num_train_epochs=1, learning_rate=task["rate"], report_to=[], save_strategy="no",
                              use_cpu=True, bf16=False)  # fmt: skip
        trainer = SFTTrainer(
            AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32), args=arguments, train_dataset=Dataset.from_list(rows),
            processing_class=AutoTokenizer.from_pretrained(folder), peft_config=config,
        )  # fmt: skip
        started = time.perf_counter()
        trainer.train()
        seconds = time.perf_counter() - started
    tokens = sum(len(prompt) + len(answer) for prompt, answer in lessons)
    return {"tokens": tokens, "seconds": seconds, **held_out(trainer.model.get_base_model(), task)}


def main() -> None:
    """See the module."""
    if len(sys.argv) != 4 or sys.argv[1] not in ("peft", "trl"):
        sys.exit(f"usage, as `tuning_speed.py` calls it:\n{__doc__}")
    _, kind, folder, path = sys.argv
    task = json.loads(Path(path).read_text(encoding="utf-8"))
    torch.manual_seed(task.get("seed", 0))
    found = {"peft": peft, "trl": trl}[kind](folder, task)
    found["peak_memory_gb"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9, 2)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
