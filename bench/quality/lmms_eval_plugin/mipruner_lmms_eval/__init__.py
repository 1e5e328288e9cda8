"""lmms-eval's models with mi_pruner_cuda.attach: `--model mipruner_llava_hf` and so on."""
