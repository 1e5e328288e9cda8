"""Writes a folder for lmms-eval's --include_path: questions about held-out scans of digits.

    python bench/quality/lmms_eval_plugin/write_scenes.py build/lmms_eval/scenes

Pictures, questions.jsonl and the task's own files. The questions are those of eval_vlm.py for the
same number and seed. The folder must stay where it is: the questions name their pictures in full.
"""

import argparse
import json
import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from eval_vlm import held_out_questions

TASK = Path(__file__).resolve().parent / "scenes"


def write_task(folder: Path, questions: int, seed: int) -> None:
    """Writes the task; files of an earlier one are overwritten."""
    pictures = folder.resolve() / "pictures"
    pictures.mkdir(parents=True, exist_ok=True)
    shown = path = None
    with (folder / "questions.jsonl").open("w") as lines:
        for number, (scene, question) in enumerate(held_out_questions(questions, seed)):
            if scene is not shown:  # the questions about a scene follow each other
                shown, path = scene, pictures / f"{number}.png"
                scene.image.save(path)
            record = {
                "id": number,
                "image": str(path),
                "question": question.text,
                "answer": question.answer,
                "family": question.family,
            }
            lines.write(json.dumps(record) + "\n")
    for name in ("mipruner_scenes.yaml", "utils.py"):
        shutil.copy(TASK / name, folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--questions", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=2024)
    args = parser.parse_args()
    write_task(args.folder, args.questions, args.seed)
    print(f"{args.questions} questions in {args.folder}")


if __name__ == "__main__":
    main()
