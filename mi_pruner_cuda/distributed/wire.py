"""The one way in which ranks talk: gathering, in rank order, to every rank."""

import torch
import torch.distributed as dist


class Wire:
    """A process group and this process's place in it.

    Only all_gather is used. An all_reduce may add in another order on every run and on every rank;
    what is gathered is combined here, in rank order, and so has the same bits everywhere.
    """

    def __init__(self, group, near: torch.device | None):
        """near: where this rank's rows are, for groups whose messages travel between GPUs."""
        if not (dist.is_available() and dist.is_initialized()):
            raise ValueError(
                "group: got no initialised torch.distributed, allowed is a group after "
                "torch.distributed.init_process_group"
            )
        self.rank = dist.get_rank(group)
        if self.rank < 0:
            raise ValueError(
                "group: got one that this process is no member of, allowed is one that it is in"
            )
        self.group = group
        self.ranks = dist.get_world_size(group)
        # Decided by the group alone, so that no two ranks wait on different networks.
        if "nccl" not in str(dist.get_backend_config(group)):
            self.device = torch.device("cpu")
        elif near is not None and near.type == "cuda":
            self.device = near
        else:
            self.device = torch.device("cuda", torch.cuda.current_device())

    def gather(self, x: torch.Tensor) -> torch.Tensor:
        """(n) -> (ranks, n), row r from rank r; n is the same on every rank."""
        x = x.to(self.device).contiguous()
        rows = [torch.empty_like(x) for _ in range(self.ranks)]
        dist.all_gather(rows, x, group=self.group)
        return torch.stack(rows)

    def gather_unequal(self, x: torch.Tensor, sizes: list[int]) -> torch.Tensor:
        """(sizes[rank]) -> (sum of sizes), rank 0's first. Sizes are known on every rank."""
        if max(sizes) == 0:
            return x.to(self.device)
        padded = x.new_zeros(max(sizes))
        padded[: x.shape[0]] = x
        rows = self.gather(padded)
        return torch.cat([rows[r, :size] for r, size in enumerate(sizes)])

    def gather_words(self, words: str) -> list[str]:
        """One message of each rank, for errors."""
        data = torch.tensor(list(words.encode()), dtype=torch.uint8, device="cpu")
        size = torch.tensor([len(data)], dtype=torch.int64, device="cpu")
        sizes = self.gather(size)[:, 0].tolist()
        parts = self.gather_unequal(data, sizes).cpu().split(sizes)
        return [bytes(part.tolist()).decode() for part in parts]
