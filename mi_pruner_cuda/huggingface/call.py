"""One forward of the vision-and-language module, as the hook before it sees it."""

import inspect
from dataclasses import dataclass

import torch

KINDS = ("image", "video")
_PIXELS = {"image": ("pixel_values", "pixel_values_images"), "video": ("pixel_values_videos",)}


@dataclass(frozen=True)
class Call:
    """The arguments of one forward (not all of them are always there).

    input_ids: (B, L) int64.
    inputs: every argument by name.
    """

    input_ids: torch.Tensor | None
    inputs: dict

    def pixels(self, kind: str) -> torch.Tensor | None:
        """Pixels of all images or videos."""
        return next((v for n in _PIXELS[kind] if (v := self.inputs.get(n)) is not None), None)

    def features(self, kind: str) -> list[torch.Tensor] | None:
        """Rows of each image, tile or video where generate has encoded them (transformers 5)."""
        rows = getattr(self._encoded(kind), "pooler_output", None)
        return None if rows is None else list(rows)

    def brings(self, kind: str) -> bool:
        """Whether images or videos come with the call."""
        return self._encoded(kind) is not None or self.pixels(kind) is not None

    def is_of_generate(self) -> bool:
        """Whether images or videos were encoded beforehand, as generate does since transformers
        5.18.
        """
        return any(self._encoded(kind) is not None for kind in KINDS)

    def check_whole(self) -> None:
        """Refuses a chunk of a prompt: the question may lie in another.

        Nothing in the call names chunked prefill; its features lack what the encoder returned
        beside them.

        Raises:
            ValueError.
        """
        for kind in KINDS:
            output = self._encoded(kind)
            if output is not None and getattr(output, "last_hidden_state", None) is None:
                raise ValueError(
                    f"mm_encoder_outputs: got {kind} features without the encoder's "
                    "last_hidden_state, as chunked prefill makes them; pruning needs the whole "
                    "prompt at once: pass prefill_chunk_size=None, and pixels rather than features "
                    "of your own"
                )

    def vision_tensors(self) -> list[torch.Tensor]:
        """Which images and videos these are: generate passes the same tensors at every step."""
        found: list[torch.Tensor] = []
        for kind in KINDS:
            rows, pixels = getattr(self._encoded(kind), "pooler_output", None), self.pixels(kind)
            # Not features(): rows of one tensor would be new views at every step.
            given = pixels if rows is None else rows
            found += [] if given is None else [given] if torch.is_tensor(given) else list(given)
        return found

    def _encoded(self, kind: str):
        return (self.inputs.get("mm_encoder_outputs") or {}).get(kind)


def named(module, args: tuple, kwargs: dict) -> dict:
    """All arguments of a module's forward by name: some classes pass some by position."""
    if not args:
        return dict(kwargs)
    return {**dict(zip(inspect.signature(module.forward).parameters, args, strict=False)), **kwargs}
