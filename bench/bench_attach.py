"""What attach adds to a prefill and what it saves, on a language model of real proportions.

    python bench/bench_attach.py --output attach.md

Random weights, float32, on the CPU; a tiny vision tower, so that what is timed is the language
model. The unhooked model and every budget are run in turn, several times over, so that a change in
the machine's speed meets all of them. Times are medians; a ratio is the median of the rounds' own
ratios to the unhooked model. Columns:

- language model: from attach's hook before it, so with the selection and the gather, to its end.
- prefill: the call of the model, with the vision tower and one column of logits.
- hooks: all that attach does in a prefill; selection: the part of it that selects.
- decode: of one token, on the cache that the prefill left.
- cache: keys and values after the prefill.
- peak: growth of resident memory (VmHWM of Linux, reset before) over one prefill, so with the cache
  and all activations, without the weights. Measured in a process of its own whose allocator hands
  freed memory back at once, so that it repeats.
"""

import argparse
import ctypes
import inspect
import json
import math
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import torch
import transformers
from bench_select import machine

from mi_pruner_cuda import attach

KEEPS = (None, 1.0, 0.5, 0.25, 64)  # None: unhooked
WORDS = 40  # of the question, each a token
DECODED = 16
_M_MMAP_THRESHOLD = -3  # malloc.h of the GNU C library
VOCABULARY = 1024
PAD, BOS, EOS, IMAGE, VIDEO, VISION_START, VISION_END = range(7)
FIRST_WORD = 7
HEAD = 64  # columns of a head
PATCH, MERGE, FRAMES = 14, 2, 2  # of the vision towers; the last two are Qwen's
GOALS = (
    "Goals: at keep = 1.0 attach adds at most 2 % to the prefill; at keep = 0.25 the language "
    "model part is at least 2.5 times as fast as unhooked."
)


@dataclass(frozen=True)
class Settings:
    """Sizes of the model: tokens is that of one image, a square number."""

    model: str
    layers: int
    hidden: int
    tokens: int

    @property
    def side(self) -> int:
        """Tokens along a side of the image."""
        return math.isqrt(self.tokens)


# ---- models and prompts ----


def build(settings):
    """A model in eval mode with random weights."""
    torch.manual_seed(0)
    model_class, config = MODELS[settings.model][0](settings)
    model = model_class._from_config(config).eval()
    model.generation_config.pad_token_id = PAD
    return model


def text_config(settings):
    heads = settings.hidden // HEAD
    return {
        "hidden_size": settings.hidden, "intermediate_size": settings.hidden * 11 // 4,
        "num_hidden_layers": settings.layers, "num_attention_heads": heads,
        "num_key_value_heads": max(1, heads // 2), "vocab_size": VOCABULARY,
        "max_position_embeddings": 8192, "pad_token_id": PAD, "bos_token_id": BOS,
        "eos_token_id": EOS,
    }  # fmt: skip


def llava_config(settings):
    config = transformers.LlavaConfig(
        vision_config=transformers.CLIPVisionConfig(
            hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=2,
            image_size=settings.side * PATCH, patch_size=PATCH, projection_dim=64,
        ),
        text_config=transformers.LlamaConfig(**text_config(settings)),
        image_token_id=IMAGE, pad_token_id=PAD,
    )  # fmt: skip
    return transformers.LlavaForConditionalGeneration, config


def llava_pixels(settings, batch):
    side = settings.side * PATCH
    return {"pixel_values": torch.randn(batch, 3, side, side)}


def qwen_config(settings):
    rope = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [8, 12, 12]}
    config = transformers.Qwen2_5_VLConfig(
        vision_config={
            "depth": 1, "hidden_size": 64, "intermediate_size": 128, "num_heads": 2,
            "patch_size": PATCH, "spatial_merge_size": MERGE, "temporal_patch_size": FRAMES,
            "fullatt_block_indexes": [0], "out_hidden_size": settings.hidden,
        },
        text_config=text_config(settings) | {"rope_parameters": rope},
        image_token_id=IMAGE, video_token_id=VIDEO, vision_start_token_id=VISION_START,
        vision_end_token_id=VISION_END, pad_token_id=PAD, bos_token_id=BOS, eos_token_id=EOS,
    )  # fmt: skip
    return transformers.Qwen2_5_VLForConditionalGeneration, config


def qwen_pixels(settings, batch):
    side = settings.side * MERGE
    patches = torch.randn(batch * side * side, 3 * FRAMES * PATCH**2)
    return {"pixel_values": patches, "image_grid_thw": torch.tensor([[1, side, side]] * batch)}


MODELS = {"llava": (llava_config, llava_pixels), "qwen": (qwen_config, qwen_pixels)}


def make_inputs(settings, batch):
    """One image and a question for each item, all of one length."""
    torch.manual_seed(1)
    image = [BOS, VISION_START, *[IMAGE] * settings.tokens, VISION_END]
    words = torch.randint(FIRST_WORD, VOCABULARY, (batch, WORDS))
    ids = torch.cat([torch.tensor(image).expand(batch, -1), words], dim=1)
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if settings.model == "qwen":
        inputs["mm_token_type_ids"] = (ids == IMAGE).int()
    return inputs | MODELS[settings.model][1](settings, batch)


# ---- one configuration ----


class Watch:
    """Seconds at which modules are called: begin, after other hooks before, end, after others.

    Make one when attach has registered its hooks: they are then between those of the watch.
    """

    def __init__(self, modules):
        self.times = [{} for _ in modules]
        self._handles = []
        for module, times in zip(modules, self.times, strict=True):
            self._handles += [
                module.register_forward_pre_hook(_note(times, "begin"), prepend=True),
                module.register_forward_pre_hook(_note(times, "hooked")),
                module.register_forward_hook(_note(times, "end"), prepend=True),
                module.register_forward_hook(_note(times, "left")),
            ]

    def hooks_ms(self):
        """What all hooks between took."""
        seconds = (t["hooked"] - t["begin"] + t["left"] - t["end"] for t in self.times)
        return sum(seconds) * 1e3

    def remove(self):
        for handle in self._handles:
            handle.remove()


def _note(times, name):
    def note(*_):
        times[name] = time.perf_counter()

    return note


@torch.no_grad()
def run(model, inputs, keep):
    """One prefill and DECODED tokens after it: milliseconds and bytes."""
    pruner = nullcontext() if keep is None else attach(model, keep)
    with pruner:
        watch = Watch([model, model.model, model.model.language_model])
        try:
            start = time.perf_counter()
            output = model(**inputs, use_cache=True, logits_to_keep=1)
            prefill = (time.perf_counter() - start) * 1e3
        finally:
            watch.remove()
        language = watch.times[-1]
        measured = {
            "language_ms": (language["left"] - language["begin"]) * 1e3,
            "prefill_ms": prefill,
            "hooks_ms": watch.hooks_ms(),
            "selection_ms": 0.0 if keep is None else 1e3 * sum(r.seconds for r in pruner.report),
            "cache_bytes": cache_bytes(output.past_key_values),
            "columns": output.past_key_values.get_seq_length(),
        }
        return measured | {"decode_ms": decode(model, output)}


def cache_bytes(cache):
    return sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)


def decode(model, output):
    """Median milliseconds of a token: greedy, on the cache of a prefill, nothing padded."""
    names = inspect.signature(model.forward).parameters
    name = "cache" if "cache" in names else "past_key_values"  # renamed in transformers 5.24
    cache, times = output.past_key_values, []
    for _ in range(DECODED):
        token = output.logits[:, -1:].argmax(-1)
        start = time.perf_counter()
        output = model(input_ids=token, **{name: cache})
        times.append((time.perf_counter() - start) * 1e3)
    return statistics.median(times)


def peaks(settings, batches, threads):
    """{batch: bytes for each of KEEPS}, from a process of its own."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(_peaks, settings, batches, threads).result()


def _peaks(settings, batches, threads):
    torch.set_num_threads(threads)
    # Every tensor of some size gets pages of its own, which go back when it is freed.
    ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, 1 << 16)
    model, found = build(settings), {}
    for batch in batches:
        inputs = make_inputs(settings, batch)
        peak_bytes(model, inputs, None)  # what libraries set up at their first call does not count
        found[batch] = [peak_bytes(model, inputs, keep) for keep in KEEPS]
    return found


@torch.no_grad()
def peak_bytes(model, inputs, keep):
    """Growth of resident memory over one prefill; None where its peak cannot be reset."""
    with nullcontext() if keep is None else attach(model, keep):
        try:
            Path("/proc/self/clear_refs").write_text("5")  # VmHWM begins at VmRSS again
        except OSError:
            return None
        before = status_bytes("VmRSS")
        model(**inputs, use_cache=True, logits_to_keep=1)
        return status_bytes("VmHWM") - before


def status_bytes(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:")) * 1024


# ---- the table ----


def measure(model, settings, batch, repeats):
    """One row for each of KEEPS, without memory."""
    inputs = make_inputs(settings, batch)
    run(model, inputs, None)  # warms up
    rounds = [[run(model, inputs, keep) for keep in KEEPS] for _ in range(repeats)]
    rows = []
    for i, keep in enumerate(KEEPS):
        own = [one[i] for one in rounds]
        row = {name: statistics.median(r[name] for r in own) for name in own[0]}
        for part in ("language", "prefill", "decode"):
            name = f"{part}_ms"
            row[f"{part}_ratio"] = statistics.median(one[0][name] / one[i][name] for one in rounds)
        rows.append({"batch": batch, "keep": keep, "repeats": repeats, **row})
    return rows


def format_table(rows):
    """rows: of one batch."""
    lines = [
        f"Batch {rows[0]['batch']}:",
        "",
        "| keep | columns | language model ms | ratio | prefill ms | ratio | hooks ms "
        "| selection ms | decode ms | ratio | cache MiB | peak MiB |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for r in rows:
        peak = "-" if r["peak_bytes"] is None else f"{r['peak_bytes'] / 2**20:.0f}"
        lines.append(
            f"| {name_of(r['keep'])} | {r['columns']:.0f} | {r['language_ms']:.1f} "
            f"| {r['language_ratio']:.2f}x | {r['prefill_ms']:.1f} | {r['prefill_ratio']:.2f}x "
            f"| {r['hooks_ms']:.2f} | {r['selection_ms']:.2f} | {r['decode_ms']:.2f} "
            f"| {r['decode_ratio']:.2f}x | {r['cache_bytes'] / 2**20:.2f} | {peak} |"
        )
    whole = next(r for r in rows if r["keep"] == 1.0)
    more = 100 * (1 / whole["prefill_ratio"] - 1)
    hooks = 100 * whole["hooks_ms"] / whole["prefill_ms"]
    lines += [
        "",
        f"At keep = 1.0 attach's hooks take {hooks:.2f} % of the prefill, which differs by "
        f"{more:+.2f} %.",
    ]
    return "\n".join(lines)


def name_of(keep):
    return "unhooked" if keep is None else f"{keep} tokens" if isinstance(keep, int) else f"{keep}"


def parse(arguments):
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", choices=MODELS, default="llava")
    parser.add_argument("--repeat", type=int, default=5, help="rounds over all configurations")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--layers", type=int, default=24)
    parser.add_argument("--hidden", type=int, default=1024, help=f"a multiple of {HEAD}")
    parser.add_argument("--tokens", type=int, default=576, help="of the image, a square number")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--output", type=Path, help="also write the table there")
    parser.add_argument("--json", type=Path, help="also write the rows there")
    args = parser.parse_args(arguments)
    for name in ("repeat", "layers", "threads", "tokens", "hidden"):
        if getattr(args, name) < 1:
            parser.error(f"--{name}: got {getattr(args, name)}, allowed is at least 1")
    if min(args.batch) < 1:
        parser.error(f"--batch: got {min(args.batch)}, allowed is at least 1")
    if args.hidden % HEAD:
        parser.error(f"--hidden: got {args.hidden}, allowed are multiples of {HEAD}")
    if math.isqrt(args.tokens) ** 2 != args.tokens:
        parser.error(f"--tokens: got {args.tokens}, allowed are square numbers, such as 576")
    return args


def main(arguments=None):
    args = parse(arguments)
    torch.set_num_threads(args.threads)
    transformers.logging.set_verbosity_error()
    settings = Settings(args.model, args.layers, args.hidden, args.tokens)
    memory = peaks(settings, args.batch, args.threads)
    model = build(settings)
    about = machine()
    text = (
        f"{type(model).__name__}, {settings.layers} layers, {settings.hidden} columns, float32, "
        f"{settings.tokens} visual tokens and {WORDS} words an item; {args.repeat} rounds, "
        f"{args.threads} threads of {about['cores']} of {about['processor']}, torch "
        f"{about['torch']}, transformers {transformers.__version__}.\n{GOALS}\n"
    )
    rows = []
    for batch in args.batch:
        own = measure(model, settings, batch, args.repeat)
        own = [row | {"peak_bytes": peak} for row, peak in zip(own, memory[batch], strict=True)]
        text += f"\n{format_table(own)}\n"
        rows += own
    if args.output:
        args.output.write_text(text)
    if args.json:
        everything = {"machine": about, "rows": rows}
        args.json.write_text(json.dumps(everything, indent=1) + "\n")
    print(text, end="")


if __name__ == "__main__":
    main()
