"""Trains the small vision-language model that ships with the package, from nothing, on a CPU.

    python bench/quality/train_vlm.py                  # both stages, then exports the checkpoint
    python bench/quality/train_vlm.py --export         # only exports what has been trained so far

Two stages: "dense" teaches the vision tower and the projector what each patch shows (it stands in
for the contrastive pretraining of a real tower), "vlm" trains the whole model on questions, always
with all 256 visual rows. The state is saved every two minutes and the same command continues from
it. README.md beside this file says exactly what each stage supervises.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import os
import pathlib
import signal
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import save_file
from torch import nn
from tqdm import tqdm
from transformers import (
    CLIPVisionConfig,
    GenerationConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

try:  # transformers 5 keeps the variant that needs no torchvision under its own name
    from transformers.models.clip.image_processing_pil_clip import (
        CLIPImageProcessorPil as ClipImages,
    )
except ImportError:
    from transformers import CLIPImageProcessor as ClipImages

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))

from mi_pruner_cuda.demo import scenes

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]

SPECIAL = ("<pad>", "<s>", "</s>", "<unk>", "<image>")
PAD, BOS, EOS, UNK, IMAGE = range(len(SPECIAL))
WORDS = (*SPECIAL, "user", "assistant", ":", *scenes.VOCABULARY)
WORD_ID = {word: index for index, word in enumerate(WORDS)}

# What a patch can be labelled with; the last entry of a list is "background".
DIGIT_WORDS = (*(str(digit) for digit in range(10)), "background")
COLOUR_WORDS = (*scenes.COLOUR_NAMES, "background")

# The prompt is: <s> user : <image> QUESTION assistant : ANSWER </s>
PREFIX = ("<s>", "user", ":")
SUFFIX = ("assistant", ":")
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<s>' if loop.first else '' }}{{ message['role'] }} :"
    "{% if message['content'] is string %}{{ ' ' + message['content'] }}{% else %}"
    "{% for part in message['content'] %}"
    "{{ ' <image>' if part['type'] == 'image' else ' ' + part['text'] }}"
    "{% endfor %}{% endif %}"
    "{{ '</s>' if message['role'] == 'assistant' else ' ' }}"
    "{% endfor %}{{ 'assistant :' if add_generation_prompt else '' }}"
)
PATCHES = scenes.GRID**2
ROWS_END = len(PREFIX) + PATCHES
BLOCK = 12  # positions of one question with its answer
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


# ---------------------------------------------------------------------------------------- the model


def _configuration() -> LlavaConfig:
    vision = CLIPVisionConfig(
        hidden_size=128,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=4,
        image_size=scenes.IMAGE_SIZE,
        patch_size=scenes.PATCH,
        projection_dim=128,
        hidden_act="gelu_pytorch_tanh",
    )
    text = LlamaConfig(
        vocab_size=len(WORDS),
        hidden_size=192,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=3,
        num_key_value_heads=3,
        head_dim=64,
        max_position_embeddings=512,
        pad_token_id=PAD,
        bos_token_id=BOS,
        eos_token_id=EOS,
        tie_word_embeddings=False,
        initializer_range=0.05,
        rope_theta=1e6,
    )
    return LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=IMAGE,
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
        projector_hidden_act="gelu",
        image_seq_length=PATCHES,
        tie_word_embeddings=False,
        pad_token_id=PAD,
        bos_token_id=BOS,
        eos_token_id=EOS,
    )


def _grid_waves(width: int) -> torch.Tensor:
    """2-D sine and cosine position codes of the patch grid."""
    frequency = 0.01 ** (torch.arange(width // 4) / (width // 4))
    angle = torch.arange(float(scenes.GRID))[:, None] * frequency
    line = torch.cat([angle.sin(), angle.cos()], 1)
    grid = (scenes.GRID, scenes.GRID, width // 2)
    rows, columns = line[:, None].expand(grid), line[None].expand(grid)
    return torch.cat([rows, columns], -1).reshape(PATCHES, width)


@torch.no_grad()
def build_model() -> LlavaForConditionalGeneration:
    """The untrained model, started so that attention begins as a match of contents."""
    model = LlavaForConditionalGeneration(_configuration())
    tower = model.model.vision_tower
    tower = getattr(tower, "vision_model", tower)
    positions = tower.embeddings.position_embedding.weight
    positions[1:] = 0.5 * _grid_waves(positions.shape[1])
    model.get_input_embeddings().weight.normal_(0, 0.7)
    for layer in model.model.language_model.layers:
        layer.self_attn.q_proj.weight.normal_(0, 0.065)
        layer.self_attn.k_proj.weight.copy_(layer.self_attn.q_proj.weight)
    projector = model.model.multi_modal_projector
    for linear in (projector.linear_1, projector.linear_2):
        nn.init.normal_(linear.weight, std=linear.in_features**-0.5)
    return model


def build_processor() -> LlavaProcessor:
    """A word-level tokenizer with the chat template, and CLIP's image normalisation."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

    words = Tokenizer(models.WordLevel(WORD_ID, unk_token="<unk>"))
    words.normalizer = normalizers.Lowercase()
    words.pre_tokenizer = pre_tokenizers.BertPreTokenizer()  # splits off every punctuation mark
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        additional_special_tokens=["<image>"],
        padding_side="left",
        model_max_length=512,
        clean_up_tokenization_spaces=False,
        model_input_names=["input_ids", "attention_mask"],
    )
    side = scenes.IMAGE_SIZE
    images = ClipImages(
        size={"shortest_edge": side},
        crop_size={"height": side, "width": side},
        image_mean=list(CLIP_MEAN),
        image_std=list(CLIP_STD),
    )
    return LlavaProcessor(
        image_processor=images,
        tokenizer=tokenizer,
        patch_size=scenes.PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=CHAT_TEMPLATE,
    )


class PatchHeads(nn.Module):
    """Linear probes on the projected rows; they serve training only and are not exported."""

    def __init__(self, width: int):
        super().__init__()
        self.digit = nn.Linear(width, len(DIGIT_WORDS))
        self.colour = nn.Linear(width, len(COLOUR_WORDS))
        self.quarter = nn.Linear(width, len(scenes.QUARTERS))
        self.centre = nn.Linear(width, 1)


def visual_rows(model: LlavaForConditionalGeneration, pixels: torch.Tensor) -> torch.Tensor:
    """The 256 projected patch features of each image, as the language model receives them."""
    features = model.model.vision_tower(pixel_values=pixels).last_hidden_state[:, 1:]
    return model.model.multi_modal_projector(features)


# ----------------------------------------------------------------------------------------- the data


@dataclasses.dataclass
class Batch:
    """Scenes with B pictures and Q questions each; -100 marks positions without a target."""

    pixels: torch.Tensor  # (B, 3, 224, 224), normalised
    digit: torch.Tensor  # (B, 256), 10 is background
    colour: torch.Tensor  # (B, 256), 8 is background
    quarter: torch.Tensor  # (B, 256), -100 on background
    centre: torch.Tensor  # (B, 256), 1 on each object's centre patch
    tokens: torch.Tensor  # (B, Q, BLOCK)
    targets: torch.Tensor  # (B, Q, BLOCK), already shifted by one
    family: torch.Tensor  # (B, Q)
    asked: torch.Tensor  # (B, Q, 256), 1 on patches of the asked objects

    def to(self, device: str) -> Batch:
        return Batch(*(getattr(self, f.name).to(device) for f in dataclasses.fields(self)))


def make_batch(
    world: scenes.World,
    rng: np.random.Generator,
    size: int,
    questions: int = 0,
    crowded: bool = False,
    weights: list[float] | None = None,
) -> Batch:
    """Renders scenes and asks about them; ``weights`` are the families' shares."""
    drawn = [world.scene(rng, crowded) for _ in range(size)]
    batch = _label_patches(drawn)
    batch["pixels"] = _normalise([scene.image for scene in drawn])
    tokens = np.full((size, questions, BLOCK), PAD, np.int64)
    targets = np.full((size, questions, BLOCK), -100, np.int64)
    family = np.zeros((size, questions), np.int64)
    asked = np.zeros((size, questions, PATCHES), np.float32)
    for b, scene in enumerate(drawn):
        for q in range(questions):
            question = _draw_question(world, scene, rng, weights)
            family[b, q] = scenes.FAMILIES.index(question.family)
            asked[b, q] = np.isin(batch["owner"][b], question.objects)
            _write_question(question, tokens[b, q], targets[b, q])
    batch.update(tokens=tokens, targets=targets, family=family, asked=asked)
    del batch["owner"]
    return Batch(**{name: torch.as_tensor(value) for name, value in batch.items()})


def _draw_question(world, scene, rng, weights) -> scenes.Question:
    if weights is None:
        return world.ask(scene, rng)
    while True:
        try:
            return world.ask(scene, rng, scenes.FAMILIES[rng.choice(len(weights), p=weights)])
        except ValueError:  # this scene allows no question of that family
            continue


def _write_question(question: scenes.Question, tokens: np.ndarray, targets: np.ndarray) -> None:
    """Fills one block; each target stands where the model predicts it."""
    prompt = [WORD_ID[word] for word in (*question.text.split(), *SUFFIX)]
    answer = [WORD_ID[word] for word in question.answer.split()] + [EOS]
    whole = (prompt + answer)[:-1]
    tokens[: len(whole)] = whole
    targets[len(prompt) - 1 : len(whole)] = answer


def _label_patches(drawn: list[scenes.Scene]) -> dict[str, np.ndarray]:
    """Per-patch labels of a list of scenes."""
    owner = np.stack([scenes.patch_owners(scene) for scene in drawn])
    labels = {"owner": owner, "centre": np.zeros(owner.shape, np.float32)}
    for name, background in (("digit", 10), ("colour", 8), ("quarter", -100)):
        labels[name] = np.full(owner.shape, background, np.int64)
    for b, scene in enumerate(drawn):
        for index, item in enumerate(scene.objects):
            mine = owner[b] == index
            labels["digit"][b, mine] = item.digit
            labels["colour"][b, mine] = scenes.COLOUR_NAMES.index(item.colour)
            labels["quarter"][b, mine] = scenes.QUARTERS.index(item.quarter)
            labels["centre"][b, item.centre_patch] = 1
    return labels


def _normalise(images: list[Image.Image]) -> torch.Tensor:
    """What the exported image processor does to a 224x224 picture."""
    pixels = np.stack([np.asarray(image, np.float32) for image in images]) / 255
    pixels = (pixels - np.array(CLIP_MEAN, np.float32)) / np.array(CLIP_STD, np.float32)
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()


# --------------------------------------------------------------------------------------- the losses


def dense_loss(heads: PatchHeads, rows: torch.Tensor, batch: Batch) -> tuple[torch.Tensor, dict]:
    """What each patch shows, read linearly from its projected row."""
    shown = batch.digit < len(DIGIT_WORDS) - 1
    weight = torch.where(shown, 1.0, 0.15)  # three patches in four are background
    weight = weight / weight.sum()
    digit, colour, quarter = heads.digit(rows), heads.colour(rows), heads.quarter(rows)
    centre = heads.centre(rows)[..., 0]
    loss = (
        F.cross_entropy(digit.transpose(1, 2), batch.digit, reduction="none")
        + F.cross_entropy(colour.transpose(1, 2), batch.colour, reduction="none")
        + F.binary_cross_entropy_with_logits(centre, batch.centre, reduction="none")
    )
    loss = (loss * weight).sum() + 0.5 * F.cross_entropy(quarter.transpose(1, 2), batch.quarter)
    marked, found = batch.centre > 0, centre > 0
    report = {
        "patch_digit": (digit.argmax(-1) == batch.digit)[shown],
        "centre_digit": (digit.argmax(-1) == batch.digit)[marked],
        "patch_colour": (colour.argmax(-1) == batch.colour)[shown],
        "patch_quarter": (quarter.argmax(-1) == batch.quarter)[shown],
        "centre_iou": (marked & found)[marked | found],
    }
    return loss, {name: hit.float().mean().item() for name, hit in report.items()}


def alignment_loss(model, rows: torch.Tensor, batch: Batch) -> torch.Tensor:
    """Contrasts each row with the language model's word embeddings, as CLIP aligns two towers.

    A patch of a digit should point at the words of its digit and its colour, and a little at the
    two words of its quarter; a background patch at "background".
    """
    words = F.normalize(model.get_input_embeddings().weight, dim=-1)
    logits = F.normalize(rows, dim=-1) @ words.T / 0.1
    log_share = F.log_softmax(logits, -1)

    def of(names: tuple[str, ...], label: torch.Tensor) -> torch.Tensor:
        ids = torch.tensor([WORD_ID[name] for name in names], device=rows.device)
        return log_share.gather(-1, ids[label][..., None])[..., 0]

    shown = batch.quarter >= 0
    quarter = batch.quarter.clamp(min=0)
    content = (of(DIGIT_WORDS, batch.digit) + of(COLOUR_WORDS, batch.colour)) / 2
    place = (of(("top", "bottom"), quarter // 2) + of(("left", "right"), quarter % 2)) / 2
    loss = torch.where(shown, -0.8 * content - 0.2 * place, -content)
    return (loss * torch.where(shown, 1.0, 0.3)).mean()


class AttentionProbe:
    """Recomputes single attention rows of chosen layers, with gradients.

    Asking the model for its attentions would switch every layer to the slow implementation; the
    grounding loss needs only one row per question.
    """

    def __init__(self, model: LlavaForConditionalGeneration, layers: tuple[int, ...]):
        self._seen = {}
        self._layers = model.model.language_model.layers
        for layer in layers:
            attention = self._layers[layer].self_attn
            attention.register_forward_pre_hook(self._keep(layer), with_kwargs=True)

    def _keep(self, layer: int):
        def hook(module, args, kwargs):
            hidden = kwargs["hidden_states"] if "hidden_states" in kwargs else args[0]
            self._seen[layer] = (hidden, *kwargs["position_embeddings"])

        return hook

    def rows(self, layer: int, head: int, at: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Attention of positions ``at`` (B, Q) over all positions: (B, Q, length)."""
        hidden, cosine, sine = self._seen[layer]
        attention = self._layers[layer].self_attn
        size = attention.head_dim
        part = slice(head * size, (head + 1) * size)
        batch = torch.arange(len(at), device=at.device)[:, None]
        cosine, sine = (wave.expand(len(at), -1, -1) for wave in (cosine, sine))
        query = F.linear(hidden[batch, at], attention.q_proj.weight[part])
        query = _turn(query, cosine[batch, at], sine[batch, at])
        key = _turn(F.linear(hidden, attention.k_proj.weight[part]), cosine, sine)
        scores = query @ key.transpose(1, 2) * attention.scaling + mask[0, 0][at]
        return scores.softmax(-1)


def _turn(x: torch.Tensor, cosine: torch.Tensor, sine: torch.Tensor) -> torch.Tensor:
    """Applies rotary positions."""
    low, high = x.chunk(2, -1)
    return x * cosine + torch.cat([-high, low], -1) * sine


def block_mask(questions: int, device: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Lets several questions share one forward over the same 256 visual rows.

    Returns the additive mask (each question sees the prefix and itself, causally) and the positions
    (each question stands directly behind the image, as if it were alone).
    """
    index = torch.arange(ROWS_END + questions * BLOCK, device=device)
    block = torch.where(
        index < ROWS_END, 0, 1 + (index - ROWS_END).div(BLOCK, rounding_mode="floor")
    )
    same = (block[None] == 0) | (block[None] == block[:, None])
    visible = same & (index[:, None] >= index[None])
    mask = torch.zeros(visible.shape, device=device).masked_fill(~visible, torch.finfo().min)
    position = torch.where(index < ROWS_END, index, ROWS_END + (index - ROWS_END) % BLOCK)
    return mask[None, None], position[None]


def answer(model, rows: torch.Tensor, batch: Batch, mask: torch.Tensor, position: torch.Tensor):
    """Runs the language model over the image and all questions; returns loss and hits (B, Q)."""
    embed = model.get_input_embeddings()
    count = len(rows)
    start = torch.tensor([WORD_ID[word] for word in PREFIX], device=rows.device)
    prefix = embed(start).expand(count, -1, -1)
    inputs = torch.cat([prefix, rows, embed(batch.tokens.flatten(1))], 1)
    hidden = model.model.language_model(
        inputs_embeds=inputs,
        attention_mask=mask.expand(count, -1, -1, -1),
        position_ids=position,
        use_cache=False,
    ).last_hidden_state[:, ROWS_END:]
    targets = batch.targets.flatten(1)
    asked = targets >= 0
    logits = model.lm_head(hidden[asked])
    loss = F.cross_entropy(logits, targets[asked])
    wrong = torch.zeros_like(asked)
    wrong[asked] = logits.argmax(-1) != targets[asked]
    return loss, ~wrong.view(batch.targets.shape).any(-1)


def grounding_loss(probe: AttentionProbe, batch: Batch, mask: torch.Tensor) -> torch.Tensor:
    """Tells three attention heads where the asked objects are.

    Head 0 of layer 1, reading from the asked word, and head 0 of layer 2, reading from where each
    word of the answer begins, should look at the patches of the asked objects. Head 1 of layer 2
    should spread evenly over the first token and one patch per asked object: with n objects the
    first token keeps 1 / (n + 1) of the attention, from which the layers above can tell how many
    there are.
    """
    content = torch.tensor([WORD_ID[w] for w in (*DIGIT_WORDS[:-1], *COLOUR_WORDS[:-1])])
    is_content = torch.isin(batch.tokens, content.to(batch.tokens.device)).float()
    offset = ROWS_END + BLOCK * torch.arange(batch.tokens.shape[1], device=batch.tokens.device)
    word_at = offset + is_content.argmax(-1)
    answer_at = offset + (batch.targets >= 0).float().argmax(-1)
    has_object = batch.asked.any(-1)
    has_second = ((batch.targets >= 0).sum(-1) > 2) & has_object  # "top left", then the end
    loss = 0.0
    for layer, at, where in (
        (1, word_at, has_object),
        (2, answer_at, has_object),
        (2, answer_at + 1, has_second),
    ):
        visual = probe.rows(layer, 0, at, mask)[..., len(PREFIX) : ROWS_END]
        mass = (visual * batch.asked).sum(-1)[where]
        loss = loss - (mass + 1e-3).log().sum() / where.sum().clamp(min=1)
    spread = probe.rows(2, 1, answer_at, mask)
    centres = batch.asked * batch.centre[:, None]
    log_spread = (spread + 1e-4).log()
    hits = log_spread[..., 0] + (log_spread[..., len(PREFIX) : ROWS_END] * centres).sum(-1)
    return loss - (hits / (1 + centres.sum(-1))).mean()


# ------------------------------------------------------------------------------------- the training


@dataclasses.dataclass
class Stage:
    """One stage of the training; the learning rate warms up, then falls along a cosine."""

    name: str
    steps: int
    rate: float
    size: int
    questions: int
    vision_rate: float = 1.0  # the vision tower's share of the learning rate


class Trainer:
    """Holds everything that a checkpoint must restore."""

    def __init__(self, args: argparse.Namespace):
        self.args = args
        self.stages = [
            Stage("dense", args.dense_steps, args.dense_rate, args.dense_batch, 0),
            Stage("vlm", args.vlm_steps, args.vlm_rate, args.batch, args.questions, 0.3),
        ]
        torch.manual_seed(args.seed)
        self.model = build_model().to(args.device)
        width = self.model.config.text_config.hidden_size
        self.heads = PatchHeads(width).to(args.device)
        self.probe = AttentionProbe(self.model, (1, 2))
        self.world = scenes.World("train", args.seed)
        self.stage, self.step, self.seconds = 0, 0, [0.0] * len(self.stages)
        self.optimizer, self._restored, self._exam = None, None, None
        self._renderer = ThreadPoolExecutor(1)  # draws the next batch while this one is learned
        self._stop = False
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._ask_to_stop)
        if args.state.exists():
            self._load()

    # A checkpoint needs no generator state: every step draws from a generator seeded by its number.
    def save(self) -> None:
        state = {
            "model": self.model.state_dict(),
            "heads": self.heads.state_dict(),
            "optimizer": self.optimizer.state_dict() if self.optimizer else None,
            "stage": self.stage,
            "step": self.step,
            "seconds": self.seconds,
            "seed": self.args.seed,
        }
        self.args.state.parent.mkdir(parents=True, exist_ok=True)
        partial = self.args.state.with_suffix(".partial")
        torch.save(state, partial)
        os.replace(partial, self.args.state)  # a kill while saving leaves the previous state whole

    def _ask_to_stop(self, *_) -> None:
        """Lets the step in progress end, so that what is saved is consistent."""
        self._stop = True

    def _load(self) -> None:
        state = torch.load(self.args.state, map_location=self.args.device, weights_only=True)
        if state["seed"] != self.args.seed:
            raise SystemExit(f"{self.args.state} was trained with --seed {state['seed']}")
        self.model.load_state_dict(state["model"])
        self.heads.load_state_dict(state["heads"])
        self.stage, self.step, self.seconds = state["stage"], state["step"], state["seconds"]
        self._restored = state["optimizer"]

    def run(self) -> None:
        while self.stage < len(self.stages):
            self._run_stage(self.stages[self.stage])
            self.stage, self.step, self.optimizer = self.stage + 1, 0, None
            self.save()

    def _run_stage(self, stage: Stage) -> None:
        self.optimizer = self._make_optimizer(stage)
        if self._restored is not None:
            self.optimizer.load_state_dict(self._restored)
            self._restored = None
        if stage.questions:
            self._mask, self._position = block_mask(stage.questions, self.args.device)
        bar = tqdm(total=stage.steps, initial=self.step, desc=stage.name, mininterval=10)
        saved, recent = time.monotonic(), {}
        upcoming = self._renderer.submit(self._draw, stage, self.step)
        while self.step < stage.steps:
            begin = time.monotonic()
            batch = upcoming.result().to(self.args.device)
            upcoming = self._renderer.submit(self._draw, stage, self.step + 1)
            for name, value in self._train_step(stage, batch).items():
                recent.setdefault(name, []).append(value)
            self.step += 1
            bar.update()
            now = time.monotonic()
            self.seconds[self.stage] += now - begin
            if self.step % self.args.report_every == 0 or self.step == stage.steps:
                self._report(stage, recent)
                recent = {}
            if now - saved > 120 or self._stop:
                self.save()
                saved = now
            if self._stop:
                raise SystemExit("stopped; the same command continues from here")
        bar.close()

    def _make_optimizer(self, stage: Stage) -> torch.optim.Optimizer:
        groups = []
        sees = (self.model.model.vision_tower, self.model.model.multi_modal_projector, self.heads)
        reads = (self.model.model.language_model, self.model.lm_head)
        for modules, share in ((sees, stage.vision_rate), (reads, 1.0)):
            weights = [p for module in modules for p in module.parameters()]
            trained = stage.name != "dense" or modules is sees
            for weight in weights:
                weight.requires_grad_(trained)
            if trained:
                for flat, decay in ((False, 0.05), (True, 0.0)):
                    chosen = [weight for weight in weights if (weight.ndim < 2) == flat]
                    groups.append({"params": chosen, "weight_decay": decay, "share": share})
        return torch.optim.AdamW(groups, lr=stage.rate, betas=(0.9, 0.98))

    def _rate(self, stage: Stage) -> float:
        warm = min(1.0, (self.step + 1) / 100)
        fall = 0.5 + 0.5 * math.cos(math.pi * self.step / stage.steps)
        return stage.rate * warm * (0.02 + 0.98 * fall)

    def _draw(self, stage: Stage, step: int) -> Batch:
        """The batch of one step, from a generator that depends on nothing but the step."""
        rng = np.random.default_rng([self.args.seed, 7, self.stage, step])
        crowded = stage.name == "dense"
        weights = self.args.mixture if stage.questions else None
        return make_batch(self.world, rng, stage.size, stage.questions, crowded, weights)

    def _train_step(self, stage: Stage, batch: Batch) -> dict[str, float]:
        for group in self.optimizer.param_groups:
            group["lr"] = self._rate(stage) * group["share"]
        loss, report = self._loss(stage, batch)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        trained = [p for group in self.optimizer.param_groups for p in group["params"]]
        nn.utils.clip_grad_norm_(trained, 1.0)
        self.optimizer.step()
        return report

    def _loss(self, stage: Stage, batch: Batch) -> tuple[torch.Tensor, dict[str, float]]:
        rows = visual_rows(self.model, batch.pixels)
        dense, report = dense_loss(self.heads, rows, batch)
        align = alignment_loss(self.model, rows, batch)
        report.update(dense=dense.item(), align=align.item())
        if not stage.questions:
            return dense + align, report
        said, hits = answer(self.model, rows, batch, self._mask, self._position)
        ground = grounding_loss(self.probe, batch, self._mask)
        report.update(answer=said.item(), ground=ground.item(), exact=hits.float().mean().item())
        return said + 0.5 * ground + 0.2 * dense + 0.2 * align, report

    def _report(self, stage: Stage, recent: dict[str, list[float]]) -> None:
        line = {"stage": stage.name, "step": self.step, "minutes": self.seconds[self.stage] / 60}
        line.update({name: float(np.mean(values)) for name, values in recent.items()})
        line["held_out"] = self.examine()
        rounded = {k: round(v, 4) if isinstance(v, float) else v for k, v in line.items()}
        tqdm.write(json.dumps(rounded), file=sys.stdout)
        sys.stdout.flush()

    @torch.no_grad()
    def examine(self) -> dict[str, float]:
        """Quick accuracies on scenes of held-out scans, the same ones every time."""
        questions = 12
        if self._exam is None:
            world = scenes.World("test", self.args.seed)
            self._exam = []
            for index in range(4):
                rng = np.random.default_rng([self.args.seed, 9, index])
                self._exam.append(make_batch(world, rng, 16, questions).to(self.args.device))
        mask, position = block_mask(questions, self.args.device)
        self.model.eval()
        hits, reports = [], []
        for batch in self._exam:
            rows = visual_rows(self.model, batch.pixels)
            reports.append(dense_loss(self.heads, rows, batch)[1])
            if self.stage > 0:
                hits.append(answer(self.model, rows, batch, mask, position)[1])
        self.model.train()
        result = {k: round(float(np.mean([r[k] for r in reports])), 3) for k in reports[0]}
        if hits:
            hit = torch.cat(hits)
            family = torch.cat([batch.family for batch in self._exam])
            for index, name in enumerate(scenes.FAMILIES):
                result[name] = round(hit[family == index].float().mean().item(), 3)
            result["all"] = round(hit.float().mean().item(), 3)
        return result


# --------------------------------------------------------------------------------------- the export


def export(model: LlavaForConditionalGeneration, folder: pathlib.Path) -> None:
    """Writes the model and its processor in the Hugging Face format.

    The weights are stored as float16 to halve the download; the configuration says float32, so
    ``from_pretrained`` casts them back and computes in full precision. What is written loads in
    transformers 4.57 as well as in 5: tensors carry the names of the original LLaVA checkpoints,
    and the settings that moved between the two versions are spelled both ways.
    """
    folder.mkdir(parents=True, exist_ok=True)
    model.config.save_pretrained(folder)
    _edit_json(folder / "config.json", _spell_config)
    GenerationConfig(
        do_sample=False, max_new_tokens=8, pad_token_id=PAD, bos_token_id=BOS, eos_token_id=EOS
    ).save_pretrained(folder)
    weights = {
        _original_name(name): value.detach().to("cpu", torch.float16).contiguous()
        for name, value in model.state_dict().items()
    }
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "model.safetensors").chmod(0o644)
    processor = build_processor()
    processor.save_pretrained(folder)
    _edit_json(folder / "tokenizer_config.json", _spell_tokenizer)
    images = {**processor.image_processor.to_dict(), "image_processor_type": "CLIPImageProcessor"}
    path = folder / "preprocessor_config.json"  # transformers 4 looks for the image settings here
    path.write_text(json.dumps(images, indent=2) + "\n")


def _original_name(name: str) -> str:
    """A parameter's name in the original LLaVA checkpoints, which every version can read."""
    if name.startswith("lm_head."):
        return "language_model." + name
    name = name.removeprefix("model.")
    name = name.replace("language_model.", "language_model.model.", 1)
    tower = "vision_tower.vision_model."
    return name if name.startswith(tower) else name.replace("vision_tower.", tower, 1)


def _edit_json(path: pathlib.Path, edit: Callable[[dict], None]) -> None:
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content, indent=2) + "\n")


def _spell_config(config: dict) -> None:
    for part in (config, config["text_config"], config["vision_config"]):
        part.pop("torch_dtype", None)
        part.pop("dtype", None)
    config["dtype"] = "float32"
    config["architectures"] = ["LlavaForConditionalGeneration"]
    config["text_config"]["rope_theta"] = 1e6  # transformers 5 reads rope_parameters instead


def _spell_tokenizer(config: dict) -> None:
    config["tokenizer_class"] = "PreTrainedTokenizerFast"
    config.pop("extra_special_tokens", None)  # transformers 4 expects a mapping under this name
    config["additional_special_tokens"] = ["<image>"]
    config["model_input_names"] = ["input_ids", "attention_mask"]


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0 leaves the default")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dense-steps", type=int, default=1700)
    parser.add_argument("--dense-rate", type=float, default=1.5e-3)
    parser.add_argument("--dense-batch", type=int, default=16)
    parser.add_argument("--vlm-steps", type=int, default=1700)
    parser.add_argument("--vlm-rate", type=float, default=1e-3)
    parser.add_argument("--batch", type=int, default=8, help="scenes per step of the vlm stage")
    parser.add_argument("--questions", type=int, default=16, help="questions per scene")
    parser.add_argument(
        "--mixture",
        type=float,
        nargs=len(scenes.FAMILIES),
        default=[0.08, 0.13, 0.16, 0.38, 0.25],
        help="shares of the families: " + ", ".join(scenes.FAMILIES),
    )
    parser.add_argument("--report-every", type=int, default=50)
    parser.add_argument(
        "--state",
        type=pathlib.Path,
        default=REPOSITORY / "build" / "train_vlm.pt",
        help="where the resumable state lies; delete it to start over",
    )
    parser.add_argument(
        "--output", type=pathlib.Path, default=REPOSITORY / "mi_pruner_cuda" / "demo" / "model"
    )
    parser.add_argument("--export", action="store_true", help="export the state, train nothing")
    return parser.parse_args()


def main() -> None:
    args = parse_arguments()
    args.mixture = [share / sum(args.mixture) for share in args.mixture]
    if args.threads:
        torch.set_num_threads(args.threads)
    if args.export and not args.state.exists():
        raise SystemExit(f"nothing to export: {args.state} does not exist")
    trainer = Trainer(args)
    if not args.export:
        trainer.run()
    export(trainer.model, args.output)
    print(f"exported to {args.output}")


if __name__ == "__main__":
    main()
