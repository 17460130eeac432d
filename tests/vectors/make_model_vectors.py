#!/usr/bin/env python3
"""Makes tests/vectors/model: tiny random checkpoints and what transformers says of them.  Needs torch, transformers (made
with 5.23) and numpy; not run by the tests, which only read what it wrote.

    make_model_vectors.py

Only switches that transformers means as DeepSeek's code does: no norm_topk_prob (it ignores it), moe_layer_freq 1,
routed experts, `greedy` not `gready`, hidden_size divisible by the heads, no key of YaRN left out, an even latent width."""
import json
import os
import sys

import numpy as np
import torch
import transformers

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "parity"))
import make_checkpoint

COMMON = {"hidden_size": 48, "num_hidden_layers": 2, "vocab_size": 97, "num_attention_heads": 3, "kv_lora_rank": 22,
          "qk_nope_head_dim": 12, "qk_rope_head_dim": 8, "v_head_dim": 20, "intermediate_size": 40, "moe_intermediate_size": 12,
          "first_k_dense_replace": 1, "moe_layer_freq": 1, "norm_topk_prob": False, "rms_norm_eps": 1e-6, "files": 1, "fine": False}
CASES = {
    "lite": {"q_lora_rank": None, "n_routed_experts": 8, "topk_method": "greedy", "num_experts_per_tok": 3, "n_shared_experts": 2,
             "routed_scaling_factor": 1.0, "tie_word_embeddings": False, "rope": "yarn", "style": "rope_scaling", "dtype": "BF16"},
    "v2": {"q_lora_rank": 17, "n_routed_experts": 16, "topk_method": "group_limited_greedy", "n_group": 8, "topk_group": 3,
           "num_experts_per_tok": 4, "n_shared_experts": 1, "routed_scaling_factor": 4.0, "tie_word_embeddings": False, "rope": "yarn",
           "style": "rope_parameters", "dtype": "BF16"},
    "plain": {"q_lora_rank": 24, "n_routed_experts": 8, "topk_method": "greedy", "num_experts_per_tok": 1, "n_shared_experts": 3,
              "routed_scaling_factor": 2.5, "tie_word_embeddings": True, "rope": "none", "style": "rope_scaling", "dtype": "F16",
              "first_k_dense_replace": 0},
}


def main():
    for seed, (name, switches) in enumerate(CASES.items()):
        folder = os.path.join(HERE, "model", name)
        make_checkpoint.make(folder, 100 + seed, {**COMMON, **switches})
        model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
        ids = np.random.default_rng(seed).integers(0, 97, 80)
        with torch.no_grad():
            logits = model(torch.tensor(ids[None])).logits[0].double()
        expected = torch.log_softmax(logits, -1).float().numpy()
        make_checkpoint.write_safetensors(os.path.join(folder, "expected.safetensors"), {"logprobs": ("F32", expected)})
        with open(os.path.join(folder, "expected.json"), "w") as file:
            json.dump({"ids": ids.tolist(), "prompt": 70, "made_with": f"transformers {transformers.__version__}"}, file)
        print(name, expected.shape, sum(os.path.getsize(os.path.join(folder, f)) for f in os.listdir(folder)), "bytes")


if __name__ == "__main__":
    main()
