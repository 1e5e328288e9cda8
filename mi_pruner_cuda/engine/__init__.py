"""What a serving engine (vLLM, SGLang and the like) needs to prune visual tokens; torch only.

In the order in which an engine meets them:

1. The request arrives. keep_counts says how many placeholders each image, or each frame, gets:
   exact, before anything is encoded, the same number in every process.
2. The images are encoded. plan chooses the rows of each image: keep_counts rows, no more, no less.
3. Rows are merged into the prompt. Plan.rows gathers embeddings and DeepStack planes, Plan.values
   what has one number a row. Plan.hashes go into the prefix cache's key beside the images' own
   hashes: the same image keeps other rows for another question. Plans without text depend on the
   image alone.
4. Plan.prompt does the same for whole prompts: ids, masks and positions, which token comes next and
   the delta by which engines say so.

Ranks of a tensor-parallel group must prune alike: compute the plan on one and send its indices, or
compare hashes. Where only shards of the rows are on each rank: mi_pruner_cuda.distributed.
"""

from ..budget import keep_count
from ..keep_hash import keep_hash
from .counts import keep_counts
from .planning import Plan, plan
from .prompt import Positions, PrunedPrompt

__all__ = [
    "Plan",
    "Positions",
    "PrunedPrompt",
    "keep_count",
    "keep_counts",
    "keep_hash",
    "plan",
]
