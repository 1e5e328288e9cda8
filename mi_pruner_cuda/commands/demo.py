"""demo: the shipped picture, question and model, with all visual tokens and a tenth of them."""

import json

from . import prune, values
from .checks import check_separate, model_files
from .errors import UserError
from .streams import say

HELP = "answers a question about the shipped picture with all visual tokens and with a tenth"


def add_arguments(parser) -> None:
    """Those of prune, without a model and a picture."""
    parser.add_argument("--question", type=values.words, metavar="TEXT", help="another question")
    parser.add_argument(
        "--out", type=values.file, default="mipruner_demo.png", metavar="FILE", help="the picture"
    )
    parser.add_argument(
        "--seed", type=int, metavar="N",
        help="renders another held-out picture (needs scikit-learn)",
    )  # fmt: skip
    parser.add_argument(
        "--repeat", type=values.count, default=9, metavar="N",
        help="times the median of N calls, after one to warm up",
    )  # fmt: skip
    prune.add_options(parser, keep="0.1", new_tokens=4)


def run(arguments) -> None:
    """Answers twice, draws what was kept, and prints both answers beside the expected one."""
    from ..demo import model_path, scene_path

    prune.check_plot("out", arguments.out)
    shipped = [scene_path(), scene_path().with_suffix(".json"), *model_files(str(model_path()))]
    check_separate({"out": arguments.out}, {"a part of the demo": shipped})
    picture, questions = _scene(arguments.seed)
    if arguments.question is None:
        arguments.question = questions[0]["text"]
    result = prune.run_prompt(arguments, [picture], str(model_path()), compare=True)
    writers = {"out": ("picture", prune.write_plot)}
    written, mistakes = prune.write_outputs(writers, arguments, result)
    with prune.mistakes_told(mistakes):
        _print(arguments, result, questions)
        for line in written:
            say(line)
        others = [q["text"] for q in questions if q["text"] != arguments.question]
        say(f'try also  --question "{others[-1]}"')


def _print(arguments, result, questions: list[dict]) -> None:
    expected = _expected(arguments.question, questions)
    say(f"question  {arguments.question}")
    unknown = _unknown_words(result.session.processor.tokenizer, arguments.question)
    if unknown:
        say(f"          the demo's model does not know: {' '.join(unknown)}")
    say(f"expected  {expected or 'unknown for a question of your own'}")
    say(f"answer    {result.full.text}   (all {result.pruned.report.tokens_before} tokens)")
    say(f"answer    {result.pruned.text}   ({result.pruned.report.tokens_after} tokens)")
    prune.print_numbers(result, arguments)


def _scene(seed: int | None) -> tuple:
    """The picture (a file or rendered) and its questions, each with text and answer."""
    if seed is None:
        from ..demo import scene_path

        path = scene_path()
        return path, json.loads(path.with_suffix(".json").read_text("utf-8"))["questions"]
    if seed < 0:
        raise UserError(f"seed: got {seed}, allowed is an integer >= 0")
    from ..demo import scenes

    try:
        scene = scenes.render(seed)
    except ImportError as error:
        raise UserError(f"seed: {error}") from error
    asked = [scenes.ask(scene, family, seed) for family in scenes.FAMILIES]
    return scene.image, [{"text": q.text, "answer": q.answer} for q in asked]


def _expected(question: str, questions: list[dict]) -> str | None:
    """The answer of a question that the scene comes with, however it is spaced."""
    known = {_plain(q["text"]): q["answer"] for q in questions}
    return known.get(_plain(question))


def _plain(text: str) -> str:
    return "".join(text.lower().split())


def _unknown_words(tokenizer, question: str) -> list[str]:
    """The tiny model has few words: say so rather than let it guess."""
    return [
        word
        for word in question.split()
        if tokenizer.unk_token_id in tokenizer(word, add_special_tokens=False)["input_ids"]
    ]
