"""Random DeepSeek-V2 checkpoints in Hugging Face's layout, and a reader of them.  numpy only.

    python3 make_checkpoint.py DIR SEED [JSON of switches]

The scales are such that attention attends, routers choose and log-probs are far from flat."""
import json
import os
import sys

import numpy as np


def to_bf16(x):
    """Round to nearest even; the upper halves as uint16."""
    bits = np.ascontiguousarray(x, np.float32).view(np.uint32).astype(np.uint64)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)


def from_bf16(half):
    return (half.astype(np.uint32) << 16).view(np.float32)


ENCODE = {"F32": lambda x: np.ascontiguousarray(x, np.float32), "BF16": to_bf16, "F16": lambda x: x.astype(np.float16)}
DECODE = {"F32": lambda b: np.frombuffer(b, np.float32), "BF16": lambda b: from_bf16(np.frombuffer(b, np.uint16)),
          "F16": lambda b: np.frombuffer(b, np.float16)}


def write_safetensors(path, tensors, pad=0):
    """tensors: name -> (dtype, array).  pad: spaces behind the header, so that data may start at any byte."""
    header, blobs, at = {"__metadata__": {"format": "pt"}}, [], 0
    for name, (dtype, array) in tensors.items():
        blob = ENCODE[dtype](array).tobytes()
        header[name] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": [at, at + len(blob)]}
        blobs.append(blob)
        at += len(blob)
    text = json.dumps(header).encode() + b" " * pad
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text + b"".join(blobs))


def read_safetensors(path):
    with open(path, "rb") as file:
        bytes_ = file.read()
    size = int.from_bytes(bytes_[:8], "little")
    header = json.loads(bytes_[8:8 + size])
    out = {}
    for name, entry in header.items():
        if name != "__metadata__":
            begin, end = entry["data_offsets"]
            out[name] = DECODE[entry["dtype"]](bytes_[8 + size + begin:8 + size + end]).reshape(entry["shape"])
    return out


def read(folder):
    """config, and all tensors as float64."""
    with open(os.path.join(folder, "config.json")) as file:
        config = json.load(file)
    index = os.path.join(folder, "model.safetensors.index.json")
    names = ["model.safetensors"]
    if os.path.exists(index):
        with open(index) as file:
            names = sorted(set(json.load(file)["weight_map"].values()))
    tensors = {}
    for name in names:
        tensors.update(read_safetensors(os.path.join(folder, name)))
    return config, {name: array.astype(np.float64) for name, array in tensors.items()}


def shapes(c):
    """name -> shape, written down a second time: the C side has its own list."""
    H, n, r = c["hidden_size"], c["num_attention_heads"], c["kv_lora_rank"]
    dn, dr, dv = c["qk_nope_head_dim"], c["qk_rope_head_dim"], c["v_head_dim"]
    out = {"model.embed_tokens": (c["vocab_size"], H), "model.norm": (H,)}
    if not c.get("tie_word_embeddings"):
        out["lm_head"] = (c["vocab_size"], H)
    for layer in range(c["num_hidden_layers"]):
        p = f"model.layers.{layer}."
        out[p + "input_layernorm"] = out[p + "post_attention_layernorm"] = (H,)
        if c.get("q_lora_rank"):
            out[p + "self_attn.q_a_proj"] = (c["q_lora_rank"], H)
            out[p + "self_attn.q_a_layernorm"] = (c["q_lora_rank"],)
            out[p + "self_attn.q_b_proj"] = (n * (dn + dr), c["q_lora_rank"])
        else:
            out[p + "self_attn.q_proj"] = (n * (dn + dr), H)
        out[p + "self_attn.kv_a_proj_with_mqa"] = (r + dr, H)
        out[p + "self_attn.kv_a_layernorm"] = (r,)
        out[p + "self_attn.kv_b_proj"] = (n * (dn + dv), r)
        out[p + "self_attn.o_proj"] = (H, n * dv)

        def mlp(prefix, inner):
            out[prefix + "gate_proj"] = out[prefix + "up_proj"] = (inner, H)
            out[prefix + "down_proj"] = (H, inner)

        if not c.get("n_routed_experts") or layer < c["first_k_dense_replace"] or layer % c["moe_layer_freq"]:
            mlp(p + "mlp.", c["intermediate_size"])
            continue
        out[p + "mlp.gate"] = (c["n_routed_experts"], H)
        for e in range(c["n_routed_experts"]):
            mlp(f"{p}mlp.experts.{e}.", c["moe_intermediate_size"])
        if c.get("n_shared_experts"):
            mlp(p + "mlp.shared_experts.", c["n_shared_experts"] * c["moe_intermediate_size"])
    return {name + ".weight": shape for name, shape in out.items()}


def values(rng, name, shape, tied):
    if len(shape) == 1:
        return (1 + 0.2 * rng.standard_normal(shape)).astype(np.float32)
    gain = 1.0
    if name.endswith("embed_tokens.weight"):
        gain = 2.5 if tied else shape[1] ** 0.5
    elif name.endswith(("o_proj.weight", "down_proj.weight")):
        gain = 0.7 * (2.5 / 48 ** 0.5 if tied else 1)  # what a layer adds is in proportion to the embedding
    elif name.endswith("lm_head.weight"):
        gain = 2.5
    elif name.endswith("mlp.gate.weight"):
        gain = 1.5
    elif name.endswith(("q_proj.weight", "q_b_proj.weight")):
        gain = 1.5
    return (gain / shape[1] ** 0.5 * rng.standard_normal(shape)).astype(np.float32)


def draw(rng, switches):
    """A configuration over the switches; what `switches` names is fixed."""
    pick = lambda *options: options[int(rng.integers(len(options)))]
    groups = pick(2, 4)
    method = pick("greedy", "group_limited_greedy", "gready")
    s = {
        "hidden_size": pick(32, 44, 51), "num_hidden_layers": pick(2, 3, 4), "vocab_size": pick(97, 160),
        "num_attention_heads": pick(1, 3, 4), "q_lora_rank": pick(None, 24, 17, 0), "kv_lora_rank": pick(16, 21, 40),
        "qk_nope_head_dim": pick(8, 12, 13), "qk_rope_head_dim": pick(4, 8, 10), "v_head_dim": pick(8, 20, 11),
        "intermediate_size": pick(40, 61), "moe_intermediate_size": pick(16, 28, 9),
        "n_routed_experts": pick(8, 12, 16, None) if method != "group_limited_greedy" else 4 * groups,
        "n_shared_experts": pick(1, 2, 3, None), "num_experts_per_tok": pick(1, 2, 3, 4), "first_k_dense_replace": pick(0, 1, 2),
        "moe_layer_freq": pick(1, 1, 2), "topk_method": method, "norm_topk_prob": pick(False, True),
        "routed_scaling_factor": pick(1.0, 4.0, 2.5), "tie_word_embeddings": pick(False, False, True),
        "rope": pick("none", "yarn", "yarn-bare"), "style": pick("rope_scaling", "rope_parameters"),
        "dtype": pick("BF16", "F32", "F16"), "files": pick(1, 3), "fine": pick(False, True), "rms_norm_eps": pick(1e-6, 1e-5),
    }
    if method == "group_limited_greedy":
        s["n_group"], s["topk_group"] = groups, int(rng.integers(1, groups + 1))
    s.update(switches)
    return s


def config_of(s):
    own = ("rope", "style", "dtype", "files", "fine")
    c = {"architectures": ["DeepseekV2ForCausalLM"], "model_type": "deepseek_v2", "scoring_func": "softmax",
         "hidden_act": "silu", "max_position_embeddings": 512, "num_key_value_heads": s["num_attention_heads"],
         "attention_bias": False}
    c.update({k: v for k, v in s.items() if k not in own})
    c["torch_dtype" if s["style"] == "rope_scaling" else "dtype"] = {"BF16": "bfloat16", "F32": "float32", "F16": "float16"}[s["dtype"]]
    yarn = {"rope_type": "yarn", "type": "yarn", "factor": 4.0}
    if s["rope"] == "yarn":
        yarn.update(original_max_position_embeddings=64, beta_fast=32, beta_slow=1, mscale=0.707, mscale_all_dim=1.0)
    if s["style"] == "rope_scaling":
        yarn.pop("rope_type")
        c["rope_theta"], c["rope_scaling"] = 10000.0, yarn if s["rope"] != "none" else None
    else:
        c["rope_parameters"] = yarn if s["rope"] != "none" else {"rope_type": "default"}
        c["rope_parameters"]["rope_theta"] = 5000.0
    return c


def make(folder, seed, switches=None):
    rng = np.random.default_rng(seed)
    s = draw(rng, switches or {})
    c = config_of(s)
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, "config.json"), "w") as file:
        json.dump(c, file, indent=1)
    # fine: norms and routers in F32, as some exports have them
    fine = lambda name, shape: s["fine"] and (len(shape) == 1 or name.endswith("mlp.gate.weight"))
    tensors = {name: ("F32" if fine(name, shape) else s["dtype"], values(rng, name, shape, s["tie_word_embeddings"])) for name, shape in shapes(c).items()}
    names = list(tensors)
    rng.shuffle(names)
    if s["files"] == 1:
        # pad makes the data begin at every possible alignment
        write_safetensors(os.path.join(folder, "model.safetensors"), {n: tensors[n] for n in names}, int(rng.integers(0, 16)))
    else:
        where = {}
        for i in range(s["files"]):
            name, part = f"part-{i}-of-00000{s['files']}.safetensors", names[i::s["files"]]
            write_safetensors(os.path.join(folder, name), {n: tensors[n] for n in part}, int(rng.integers(0, 16)))
            where.update({n: name for n in part})
        with open(os.path.join(folder, "model.safetensors.index.json"), "w") as file:
            json.dump({"metadata": {"total_size": 0}, "weight_map": where}, file)
    return s


if __name__ == "__main__":
    print(json.dumps(make(sys.argv[1], int(sys.argv[2]), json.loads(sys.argv[3]) if len(sys.argv) > 3 else None)))
