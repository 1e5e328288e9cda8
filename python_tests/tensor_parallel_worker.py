"""One rank of a tensor-parallel model under attach; test_attach_ways.py runs two with torchrun.

    torchrun --nproc-per-node 2 tensor_parallel_worker.py MODEL OUT

Writes OUT.<rank>.pt: which tokens this rank kept, the logits, the generated ids; and whether the
decoder's weights are really spread over the ranks.
"""

import os
import sys

import torch
import transformers
from tiny_models import SQUARE, Prompt, inputs_for

from mi_pruner_cuda import attach

PROMPTS = [Prompt([20, SQUARE, 30, 31]), Prompt([21, SQUARE, 33])]


def answer(model) -> dict:
    """What attach keeps and what the model says then."""
    inputs = inputs_for(model, PROMPTS)
    with attach(model, keep=0.25) as pruner, torch.no_grad():
        logits = model(**inputs).logits
        ids = model.generate(**inputs, max_new_tokens=4, do_sample=False)
        kept = [r.indices.tolist() for r in pruner.report]
    return {"kept": kept, "logits": logits, "ids": ids}


def main() -> None:
    folder, out = sys.argv[1:]
    torch.set_num_threads(1)
    model = transformers.AutoModelForImageTextToText.from_pretrained(folder, tp_plan="auto").eval()
    weight = model.model.language_model.layers[0].self_attn.q_proj.weight
    found = answer(model)
    found["spread"] = weight.to_local().shape != weight.shape
    torch.save(found, f"{out}.{os.environ['RANK']}.pt")


if __name__ == "__main__":
    main()
