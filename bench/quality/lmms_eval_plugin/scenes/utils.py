"""Functions of mipruner_scenes.yaml."""

from PIL import Image

from mi_pruner_cuda.picture import to_picture


def doc_to_visual(doc: dict) -> list[Image.Image]:
    """The question's picture."""
    return [to_picture(doc["image"])]


def process_results(doc: dict, results: list[str]) -> dict[str, float]:
    """1.0 for the expected answer word for word, in all and under the question's family."""
    right = float(results[0].strip() == doc["answer"])
    return {"exact_match": right, doc["family"]: right}
