"""attach on a model that the table does not know: the generic way, or what is missing for it."""

import pytest
import tiny_models
import torch
import transformers
from class_oracle import QUERY, kept_columns, pruned_logits
from tiny_models import SQUARE, Prompt, inputs_for
from zoo import FAMILIES

from mi_pruner_cuda import attach
from mi_pruner_cuda.huggingface import MODELS

torch.set_num_threads(1)

# Families whose images are runs of placeholders, so that the zoo's ground truth holds as it is.
FRAMED = ("qwen2_5_vl", "qwen3_vl", "internvl", "gemma3", "paligemma", "glm4v", "llava")


@torch.no_grad()
def logits(model, inputs, **options):
    return model(**inputs, **options).logits


@pytest.mark.parametrize("name", FRAMED)
def test_the_generic_way_is_as_exact_as_the_table(name, monkeypatch):
    """The same model without its row: masks, positions and planes need no table."""
    family = FAMILIES[name]
    model = family.build()
    monkeypatch.delitem(MODELS, family.model_type)
    prompts = [[30, family.picture(0), 31, 32], [33, 34, family.picture(1), 35]]
    inputs = family.inputs(model, prompts)
    expected = logits(model, inputs)
    with attach(model, keep=1.0, query=QUERY):
        assert torch.equal(logits(model, inputs), expected)
    kept = kept_columns(model, inputs, family.visuals(prompts, inputs), 0.25)
    rows = pruned_logits(model, inputs, kept)
    with attach(model, keep=0.25, query=QUERY) as pruner:
        got = logits(model, inputs)
        options = {"max_new_tokens": 3, "do_sample": False}
        cached = model.generate(**inputs, **options)
        assert torch.equal(cached, model.generate(**inputs, use_cache=False, **options))
    for item, row in zip(got, rows, strict=True):
        torch.testing.assert_close(item[-len(row) :], row, rtol=1e-5, atol=1e-5)
    assert [r.kind for r in pruner.report] == ["image", "image"]


def test_images_next_to_each_other_share_a_run(monkeypatch):
    """Nothing tells them apart then: one budget for both, and the report says one image."""
    model = tiny_models.llava()
    monkeypatch.delitem(MODELS, "llava")
    inputs = inputs_for(model, [Prompt([20, SQUARE, SQUARE, 30])])
    with attach(model, keep=0.25) as pruner:
        logits(model, inputs)
    assert [(r.tokens_before, r.tokens_after, r.grid) for r in pruner.report] == [(32, 8, None)]


def test_a_vision_model_without_merging(monkeypatch):
    monkeypatch.setattr(transformers.LlavaModel, "get_image_features", None)
    model = tiny_models.llava()
    model.config.model_type = "llava_of_tomorrow"
    with pytest.raises(ValueError, match=r"llava_of_tomorrow.*qwen2_5_vl.*missing.*get_image_feat"):
        attach(model, keep=0.25)


def test_images_that_come_another_way():
    """Placeholders still hold their own embedding: the model is not one that merges."""
    model = tiny_models.llava()
    model.config.model_type = "llava_of_tomorrow"
    inputs = inputs_for(model, [Prompt([20, SQUARE, 30])])

    def unmerge(module, args, kwargs):
        kwargs["inputs_embeds"] = model.get_input_embeddings()(inputs["input_ids"])
        return args, kwargs

    handle = model.model.language_model.register_forward_pre_hook(unmerge, with_kwargs=True)
    try:
        with attach(model, keep=0.25), pytest.raises(ValueError, match="another way"):
            logits(model, inputs)
    finally:
        handle.remove()


def test_masks_of_a_class_that_makes_them_in_a_way_of_its_own():
    """What its function gives is compared with what it made: another mask is refused."""
    family = FAMILIES["gemma3"]
    model = family.build()
    inputs = family.inputs(model, [[30, family.picture(0), 31]])

    def spoil(module, args, kwargs):
        masks = {name: mask.clone() for name, mask in kwargs["attention_mask"].items()}
        masks["full_attention"][..., -1, 0] = False
        return args, {**kwargs, "attention_mask": masks}

    handle = model.model.language_model.register_forward_pre_hook(spoil, with_kwargs=True)
    try:
        with (
            attach(model, keep=0.25, query=QUERY),
            pytest.raises(ValueError, match=r"attention_mask.*missing.*Gemma3Model"),
        ):
            logits(model, inputs)
        with attach(model, keep=1.0, query=QUERY):
            logits(model, inputs)  # nothing to cut
    finally:
        handle.remove()
