"""Selection over visual tokens that are sharded across processes, as context parallelism shards
them: one call on every rank of a torch.distributed group, the same answer on all of them.

Three all_gathers, whatever the row width: a header of a few numbers, one number per text row, one
number per visual row. Visual rows never leave their rank.
"""

from .sharded import ShardSelection, select

__all__ = ["ShardSelection", "select"]
