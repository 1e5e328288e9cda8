"""What the reports of many prefills come to."""

from dataclasses import dataclass


@dataclass
class Tally:
    """Sums over images and videos; prompts without any do not count."""

    images: int = 0
    before: int = 0
    after: int = 0
    seconds: float = 0.0

    def add(self, report) -> None:
        """Adds a prefill's report: entries with image, tokens_before, tokens_after, seconds."""
        for entry in report:
            if entry.image is None:
                continue
            self.images += 1
            self.before += entry.tokens_before
            self.after += entry.tokens_after
            self.seconds += entry.seconds

    def means(self) -> dict[str, float]:
        """Per image: visual tokens before and after, and host seconds of the selection."""
        return {
            "visual_tokens_before": self.before / self.images,
            "visual_tokens_after": self.after / self.images,
            "selection_seconds": self.seconds / self.images,
        }
