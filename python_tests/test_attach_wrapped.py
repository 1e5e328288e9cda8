"""attach to models within others: PEFT's adapters, torch.compile, processes' wrappers."""

import json
import subprocess
import sys

import accelerate
import peft
import pytest
import tiny_models
import torch
import torch.distributed as dist
import transformers
from PIL import Image
from tiny_models import SQUARE, Prompt, inputs_for
from torch import nn

from mi_pruner_cuda import attach, calibrate, demo
from mi_pruner_cuda.commands.errors import UserError
from mi_pruner_cuda.commands.session import Session
from mi_pruner_cuda.huggingface.models import find_parts
from mi_pruner_cuda.huggingface.wrapped import unwrap

torch.set_num_threads(1)
TWO = [Prompt([20, SQUARE, 30, 31]), Prompt([21, SQUARE, 32, SQUARE, 33])]
MODELS = {"llava": tiny_models.llava, "qwen": tiny_models.qwen}


@torch.no_grad()
def logits(model, inputs, **options):
    return model(**inputs, **options).logits


def generate(model, inputs):
    return model.generate(**inputs, do_sample=False, max_new_tokens=5)


@pytest.fixture(params=list(MODELS))
def base(request):
    return MODELS[request.param]()


@pytest.fixture(scope="module")
def group():
    """A process group of this process."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


# The layers' names are the same in both models but for these.
_PROJECTORS = ["linear_1", "linear_2", "merger.mlp.0", "merger.mlp.2"]
_VISION = [*_PROJECTORS, "self_attn.out_proj", "attn.proj"]


def lora(**options):
    options = {"target_modules": ["q_proj", "v_proj"], **options}
    return peft.LoraConfig(task_type="CAUSAL_LM", init_lora_weights=False, **options)


ADAPTERS = {
    "lora": lora(),
    "lora of the vision tower": lora(target_modules=_VISION),
    "lora of everything": lora(target_modules="all-linear"),
    "lora of the embeddings": lora(target_modules=["embed_tokens", "q_proj"]),
    "dora": lora(use_dora=True),
    "new tokens": lora(trainable_token_indices=[30, 31]),
    "ia3": peft.IA3Config(
        target_modules=["k_proj", "down_proj"], feedforward_modules=["down_proj"],
        task_type="CAUSAL_LM", init_ia3_weights=False,
    ),
    "without a task": peft.LoraConfig(target_modules=["q_proj"], init_lora_weights=False),
}  # fmt: skip


def adapted(base, kind: str):
    torch.manual_seed(4)
    return peft.get_peft_model(base, ADAPTERS[kind]).eval()


@pytest.mark.parametrize("kind", ADAPTERS)
def test_an_adapted_model_is_pruned_like_its_base(base, kind):
    inputs = inputs_for(base, TWO)
    unadapted = logits(base, inputs)
    model = adapted(base, kind)
    whole, said = logits(model, inputs), generate(model, inputs)
    assert not torch.equal(whole, unadapted)
    with attach(model.get_base_model(), keep=0.25) as pruner:
        expected, kept = logits(model, inputs), [e.indices.tolist() for e in pruner.report]
        tokens = generate(model, inputs)
    assert expected.shape[1] < whole.shape[1]
    with attach(model, keep=0.25, query=None, redundancy=0.5) as pruner:
        logits(model, inputs)
        assert pruner.report.tokens_after == 12
    with attach(model, keep=0.25, critic=torch.eye(tiny_models.HIDDEN)) as pruner:
        assert torch.equal(logits(model, inputs), expected)
        assert [e.indices.tolist() for e in pruner.report] == kept
        assert torch.equal(generate(model, inputs), tokens)
        with pytest.raises(RuntimeError, match="already has a pruner"):
            attach(base, keep=0.5)
    with attach(model, keep=1.0):
        assert torch.equal(logits(model, inputs), whole)
    assert torch.equal(logits(model, inputs), whole)
    assert torch.equal(generate(model, inputs), said)


def test_adapters_come_and_go_under_a_pruner(base):
    """Only what is in the layers changes: the pruner stays on the model."""
    inputs = inputs_for(base, TWO)
    with attach(base, keep=0.25):
        plain = logits(base, inputs)
        model = adapted(base, "lora")
        first = logits(model, inputs)
        with model.disable_adapter():
            assert torch.equal(logits(model, inputs), plain)
        torch.manual_seed(5)
        model.add_adapter("second", lora())
        model.set_adapter("second")
        model.eval()
        second = logits(model, inputs)
        assert first.shape == plain.shape == second.shape
        assert not torch.equal(first, second)
        merged = model.merge_and_unload()
        assert merged is base
        torch.testing.assert_close(logits(base, inputs), second, rtol=0, atol=1e-4)


def test_an_adapter_in_the_model_itself(base):
    """As transformers' own model.add_adapter puts it there, without a wrapper."""
    inputs = inputs_for(base, TWO)
    with attach(base, keep=0.25):
        plain = logits(base, inputs)
    torch.manual_seed(4)
    peft.inject_adapter_in_model(lora(), base)
    base.eval()
    layers = [m for m in base.modules() if isinstance(m, peft.tuners.tuners_utils.BaseTunerLayer)]
    assert layers
    with attach(base, keep=0.25) as pruner:
        got = logits(base, inputs)
        assert pruner.report.tokens_after == 12
        for layer in layers:
            layer.enable_adapters(False)
        assert torch.equal(logits(base, inputs), plain)
    assert got.shape == plain.shape and not torch.equal(got, plain)


@pytest.mark.parametrize(
    "kind",
    [peft.PrefixTuningConfig, peft.PromptTuningConfig, peft.PromptEncoderConfig],
    ids=lambda kind: kind.__name__,
)
def test_tokens_before_the_prompt_are_refused(kind):
    base = tiny_models.llava()
    width = 16 if kind is peft.PrefixTuningConfig else tiny_models.HIDDEN
    config = kind(
        task_type="CAUSAL_LM", num_virtual_tokens=3, num_layers=2, token_dim=width,
        num_attention_heads=2, num_transformer_submodules=1,
    )  # fmt: skip
    model = peft.get_peft_model(base, config).eval()
    with pytest.raises(ValueError, match=r"model: got Peft.*tokens of its own before the prompt"):
        attach(model, keep=0.25)
    with pytest.raises(ValueError, match=r"model: got Peft.*get_base_model\(\)"):
        calibrate(model, None, [], "ridge")
    inputs = inputs_for(base, TWO)
    with attach(model.get_base_model(), keep=0.25) as pruner:
        assert logits(base, inputs).shape[1] < inputs["input_ids"].shape[1]
        assert pruner.report.tokens_after == 12
        if kind is not peft.PrefixTuningConfig:  # that one puts its tokens into the cache
            with pytest.raises(ValueError, match="inputs_embeds: got a prompt without input_ids"):
                logits(model, inputs)


def test_an_adapter_that_counts_columns_is_refused():
    model = peft.get_peft_model(tiny_models.llava(), lora(alora_invocation_tokens=[30, 31])).eval()
    with pytest.raises(ValueError, match="alora_invocation_tokens"):
        attach(model, keep=0.25)


# ---- other wrappers ----


class DeepSpeedEngine(nn.Module):
    """A stand-in: it keeps the model as DeepSpeed's own does."""

    def __init__(self, model):
        super().__init__()
        self.module = model

    def forward(self, *args, **kwargs):
        return self.module(*args, **kwargs)


WRAPPERS = {
    "DataParallel": nn.DataParallel,
    "DistributedDataParallel": nn.parallel.DistributedDataParallel,
    "accelerate": lambda model: accelerate.Accelerator(cpu=True).prepare_model(model),
    "DeepSpeed": DeepSpeedEngine,
    "DDP of PEFT": lambda model: nn.parallel.DistributedDataParallel(adapted(model, "lora")),
    "PEFT mixed": lambda model: peft.get_peft_model(model, ADAPTERS["lora"], mixed=True),
}


@pytest.mark.parametrize("wrap", WRAPPERS)
def test_other_wrappers(base, wrap, group):
    inputs = inputs_for(base, TWO)
    torch.manual_seed(4)
    model = WRAPPERS[wrap](base).eval()
    whole = logits(model, inputs)
    with attach(base, keep=0.25):
        expected = logits(model, inputs)
    with attach(model, keep=0.25) as pruner:
        assert torch.equal(logits(model, inputs), expected)
        assert pruner.report.tokens_after == 12
    assert torch.equal(logits(model, inputs), whole)


def test_what_is_found_within(base, group):
    layered = torch.compile(adapted(base, "lora"), backend="eager")
    assert unwrap(layered) is unwrap(nn.DataParallel(layered)) is unwrap(base) is base
    assert find_parts(layered).model is base
    linear = nn.Linear(2, 2)
    assert unwrap(linear) is linear and unwrap(None) is None


def test_copies_on_many_devices_are_refused(base):
    model = nn.DataParallel(base)
    model.device_ids = [0, 1]
    with pytest.raises(ValueError, match="model: got DataParallel on 2 devices"):
        attach(model, keep=0.25)


class Wrapper(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.net = inner


class Holder:
    """Such as a pipeline."""

    def __init__(self, model):
        self.model = model


def test_the_sentence_about_another_wrapper_names_the_model(base):
    name = type(base).__name__
    for wrapped, path in ((Wrapper(base), "net"), (Wrapper(Wrapper(base)), r"net\.net"),
                          (Holder(base), "model")):  # fmt: skip
        for call in (lambda m: attach(m, keep=0.25), lambda m: calibrate(m, None, [], "ridge")):
            with pytest.raises(TypeError, match=rf"model: got \w+, .*; pass its {path}, a {name}"):
                call(wrapped)
    for other in (Wrapper(nn.Linear(2, 2)), Holder(3), None, "llava"):
        with pytest.raises(TypeError, match=r"allowed is a transformers vision-language model$"):
            attach(other, keep=0.25)


# ---- critics and the command line ----


@pytest.mark.parametrize("method", ["whitening", "attention"])
def test_a_critic_of_a_wrapped_model(base, method, group):
    model = adapted(base, "lora")
    pairs = [inputs_for(base, [Prompt([20 + i, SQUARE, 30 + i, 31])]) for i in range(12)]
    expected = calibrate(base, None, pairs, method)
    for wrapped in (model, nn.parallel.DistributedDataParallel(model)):
        got = calibrate(wrapped, None, pairs, method)
        assert torch.equal(got.matrix, expected.matrix)
        assert got.model_type == base.config.model_type


@pytest.fixture(scope="module")
def adapter(tmp_path_factory):
    """A folder with an adapter of the shipped model, and that model with it."""
    folder = tmp_path_factory.mktemp("adapter")
    base = transformers.AutoModelForImageTextToText.from_pretrained(demo.model_path()).eval()
    torch.manual_seed(4)
    model = peft.get_peft_model(base, lora()).eval()
    model.save_pretrained(folder)
    return folder, model


def test_a_folder_with_an_adapter(adapter):
    folder, model = adapter
    session = Session(str(folder))
    picture = Image.open(demo.scene_path()).convert("RGB")
    inputs = session.prompt([picture], "what colour is the 7?")
    with torch.no_grad():
        expected, got = model(**inputs).logits, session.model(**inputs).logits
        with model.disable_adapter():
            assert not torch.allclose(model(**inputs).logits, expected)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-4)
    (answer,) = session.answer(inputs, 2, 1, False, [{"keep": 0.25}])
    assert answer.report.tokens_after == 64


def test_a_folder_with_an_adapter_of_nothing(adapter, tmp_path):
    config = json.loads((adapter[0] / "adapter_config.json").read_text())
    file = tmp_path / "adapter_config.json"
    for name, message in (
        (None, "does not say base_model_name_or_path"),
        ("./gone", r"there is no folder \./gone"),
    ):
        file.write_text(json.dumps(config | {"base_model_name_or_path": name}))
        with pytest.raises(UserError, match=f"model: .*{message}"):
            Session(str(tmp_path))
    for text in ("[]", "{", "{}"):
        file.write_text(text)
        with pytest.raises(UserError, match="does not say base_model_name_or_path"):
            Session(str(tmp_path))


def test_an_adapter_without_peft(adapter, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match="needs peft: pip install peft"):
        Session(str(adapter[0]))


def test_peft_is_not_loaded_for_models_without_it():
    program = (
        "import sys, mi_pruner_cuda.huggingface.wrapped as w, torch\n"
        "w.unwrap(torch.nn.Linear(2, 2))\n"
        "assert 'peft' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
