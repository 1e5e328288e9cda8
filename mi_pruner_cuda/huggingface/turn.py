"""Pictures and a text as a processor's inputs."""


def user_turn(pictures: list, text: str, processor):
    """The inputs of one prompt: the pictures, then the text, in the chat template if there is one.

    Args:
        pictures: Pillow images.
        text: without placeholders of images.
        processor: of transformers, for images and text.

    Returns:
        what the processor returns, as PyTorch tensors.
    """
    if getattr(processor, "chat_template", None):
        content = [{"type": "image"} for _ in pictures] + [{"type": "text", "text": text}]
        prompt = processor.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True
        )
    else:
        prompt = (getattr(processor, "image_token", None) or "") * len(pictures) + text
    # A template that begins with the BOS token has it already.
    bos = getattr(getattr(processor, "tokenizer", None), "bos_token", None)
    own = {"add_special_tokens": False} if bos and prompt.startswith(bos) else {}
    return processor(images=pictures, text=[prompt], return_tensors="pt", **own)
