"""DeepSeek-V2 in plain torch, small enough to train on a CPU.

The whole family's shape in one page: MLA with a low-rank query, YaRN, one dense layer, then layers of routed
experts (group-limited, greedy) beside shared ones.  Parameters are float32; matrix products run in bfloat16, which
is also what the checkpoint is written in.  Parameters carry Hugging Face's names except the routed experts, kept
stacked as [E, in, out], and the output matrix, which while training is the embedding itself.
"""
import json
import math
import os
import shutil

import torch
import torch.nn.functional as F
from torch import nn

EPS = 1e-6
COMPUTE = torch.bfloat16      # of matrix products; check.py sets float32


def config(vocab):
    return {
        "architectures": ["DeepseekV2ForCausalLM"], "model_type": "deepseek_v2", "vocab_size": vocab,
        "hidden_size": 192, "num_hidden_layers": 5, "num_attention_heads": 4, "num_key_value_heads": 4,
        "q_lora_rank": 96, "kv_lora_rank": 64, "qk_nope_head_dim": 32, "qk_rope_head_dim": 32, "v_head_dim": 64,
        "intermediate_size": 384, "moe_intermediate_size": 32, "n_routed_experts": 32, "n_shared_experts": 2,
        "num_experts_per_tok": 4, "first_k_dense_replace": 1, "moe_layer_freq": 1,
        "topk_method": "group_limited_greedy", "n_group": 8, "topk_group": 3, "routed_scaling_factor": 4.0,
        "norm_topk_prob": False, "scoring_func": "softmax", "aux_loss_alpha": 0.01, "seq_aux": False,
        "hidden_act": "silu", "rms_norm_eps": EPS, "attention_bias": False, "attention_dropout": 0.0,
        "tie_word_embeddings": False, "max_position_embeddings": 4096, "rope_theta": 10000.0,
        "rope_scaling": {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 1024, "beta_fast": 32,
                         "beta_slow": 1, "mscale": 0.707, "mscale_all_dim": 0.707},
        "bos_token_id": vocab - 2, "eos_token_id": vocab - 1, "initializer_range": 0.02, "pretraining_tp": 1,
        "use_cache": True, "torch_dtype": "bfloat16"}


def yarn_frequencies(c):
    """Radians a position for each rotary pair: fast pairs as they are, slow ones stretched by the factor."""
    y, dim, base = c["rope_scaling"], c["qk_rope_head_dim"], c["rope_theta"]

    def pair_that_turns(times):
        return dim * math.log(y["original_max_position_embeddings"] / (times * 2 * math.pi)) / (2 * math.log(base))

    low = max(math.floor(pair_that_turns(y["beta_fast"])), 0)
    high = min(math.ceil(pair_that_turns(y["beta_slow"])), dim - 1)
    pair = torch.arange(dim // 2, dtype=torch.float64)
    plain = base ** (-2 * pair / dim)
    stretched = ((pair - low) / max(high - low, 1e-3)).clamp(0, 1)
    return (plain * (1 - stretched) + plain / y["factor"] * stretched).float()


def project(x, weight):
    """x [..., in] by weight [out, in]."""
    return F.linear(x.to(COMPUTE), weight.to(COMPUTE))


def norm(x, weight):
    return F.rms_norm(x.float(), weight.shape, weight, EPS)


def rotate(x, cos, sin):
    """x [..., T, d], pairs interleaved."""
    even, odd = x[..., 0::2].float(), x[..., 1::2].float()
    return torch.stack((even * cos - odd * sin, even * sin + odd * cos), -1).flatten(-2).to(x.dtype)


def matrix(out, inp, gain=1.0):
    return nn.Parameter(torch.randn(out, inp) * gain * inp ** -0.5)


class Weight(nn.Module):
    """So that state_dict says `name.weight`."""

    def __init__(self, value):
        super().__init__()
        self.weight = value if isinstance(value, nn.Parameter) else nn.Parameter(value)


class Attention(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.heads, self.nope, self.rope, self.v = (c[k] for k in ("num_attention_heads", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim"))
        self.rank = c["kv_lora_rank"]
        hidden, q_rank, n = c["hidden_size"], c["q_lora_rank"], self.heads
        self.q_a_proj, self.q_a_layernorm = Weight(matrix(q_rank, hidden)), Weight(torch.ones(q_rank))
        self.q_b_proj = Weight(matrix(n * (self.nope + self.rope), q_rank))
        self.kv_a_proj_with_mqa, self.kv_a_layernorm = Weight(matrix(self.rank + self.rope, hidden)), Weight(torch.ones(self.rank))
        self.kv_b_proj = Weight(matrix(n * (self.nope + self.v), self.rank))
        self.o_proj = Weight(matrix(hidden, n * self.v, 0.3))
        y = c["rope_scaling"]
        self.scale = (self.nope + self.rope) ** -0.5 * (0.1 * y["mscale_all_dim"] * math.log(y["factor"]) + 1) ** 2

    def forward(self, x, cos, sin, cache=None, mask=None):
        B, T, _ = x.shape
        q = project(norm(project(x, self.q_a_proj.weight), self.q_a_layernorm.weight), self.q_b_proj.weight)
        q_nope, q_rope = q.view(B, T, self.heads, -1).transpose(1, 2).split((self.nope, self.rope), -1)
        latent, k_rope = project(x, self.kv_a_proj_with_mqa.weight).split((self.rank, self.rope), -1)
        kv = project(norm(latent, self.kv_a_layernorm.weight), self.kv_b_proj.weight)
        k_nope, v = kv.view(B, T, self.heads, -1).transpose(1, 2).split((self.nope, self.v), -1)
        q = torch.cat((q_nope, rotate(q_rope, cos, sin)), -1)
        k = torch.cat((k_nope, rotate(k_rope.unsqueeze(1), cos, sin).expand(-1, self.heads, -1, -1)), -1)
        if cache is not None:
            if cache:
                k, v = torch.cat((cache[0], k), 2), torch.cat((cache[1], v), 2)
            cache[:] = [k, v]
        o = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None, scale=self.scale)
        return project(o.transpose(1, 2).reshape(B, T, -1), self.o_proj.weight).float()


class Mlp(nn.Module):
    def __init__(self, hidden, inner):
        super().__init__()
        self.gate_proj, self.up_proj = Weight(matrix(inner, hidden)), Weight(matrix(inner, hidden))
        self.down_proj = Weight(matrix(hidden, inner, 0.3))

    def forward(self, x):
        gate, up = project(x, torch.cat((self.gate_proj.weight, self.up_proj.weight))).chunk(2, -1)
        return project(F.silu(gate) * up, self.down_proj.weight).float()


class Moe(nn.Module):
    def __init__(self, c):
        super().__init__()
        hidden, inner, E = c["hidden_size"], c["moe_intermediate_size"], c["n_routed_experts"]
        self.E, self.k, self.groups, self.groups_kept = E, c["num_experts_per_tok"], c["n_group"], c["topk_group"]
        self.scaling = c["routed_scaling_factor"]
        self.gate = Weight(torch.randn(E, hidden) * 0.02)
        self.up = nn.Parameter(torch.randn(E, hidden, 2 * inner) * hidden ** -0.5)       # gate and up side by side
        self.down = nn.Parameter(torch.randn(E, inner, hidden) * 0.3 * inner ** -0.5)
        self.shared_experts = Mlp(hidden, inner * c["n_shared_experts"])
        self.balance = None                      # the loss that keeps experts in use, of the last training step

    def route(self, rows):
        score = F.softmax(F.linear(rows, self.gate.weight), -1)                            # [N, E], float32
        with torch.no_grad():
            grouped = score.view(len(rows), self.groups, -1)
            best = grouped.amax(-1).topk(self.groups_kept, -1).indices
            kept = torch.zeros(len(rows), self.groups, 1, dtype=torch.bool).scatter_(1, best.unsqueeze(-1), True)
            chosen = grouped.masked_fill(~kept, -1).view(len(rows), -1).topk(self.k, -1).indices
        return score, chosen

    def forward(self, x):
        rows = x.reshape(-1, x.shape[-1])
        score, chosen = self.route(rows)
        order = chosen.flatten().argsort(stable=True)                                    # (token, slot) by expert
        token, count = order // self.k, torch.bincount(chosen.flatten(), minlength=self.E)
        if self.training:
            self.balance = self.E * (count / count.sum() * score.mean(0)).sum()
        # In float32: the counts differ at every call, and a bfloat16 product is compiled anew for every shape.
        parts = rows[token].split(count.tolist())
        gate, up = torch.cat([p @ w for p, w in zip(parts, self.up.unbind())]).chunk(2, -1)
        parts = (F.silu(gate) * up).split(count.tolist())
        y = torch.cat([p @ w for p, w in zip(parts, self.down.unbind())])
        weight = score.gather(1, chosen).flatten()[order] * self.scaling
        return self.shared_experts(rows).index_add(0, token, y * weight.unsqueeze(-1)).view_as(x)


class Layer(nn.Module):
    def __init__(self, c, index):
        super().__init__()
        hidden = c["hidden_size"]
        self.input_layernorm, self.post_attention_layernorm = Weight(torch.ones(hidden)), Weight(torch.ones(hidden))
        self.self_attn = Attention(c)
        self.mlp = Mlp(hidden, c["intermediate_size"]) if index < c["first_k_dense_replace"] else Moe(c)

    def forward(self, h, cos, sin, cache=None, mask=None):
        h = h + self.self_attn(norm(h, self.input_layernorm.weight), cos, sin, cache, mask)
        return h + self.mlp(norm(h, self.post_attention_layernorm.weight))


class Model(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.c = c
        self.embed_tokens = Weight(torch.randn(c["vocab_size"], c["hidden_size"]) * 0.05)
        self.layers = nn.ModuleList(Layer(c, i) for i in range(c["num_hidden_layers"]))
        self.norm = Weight(torch.ones(c["hidden_size"]))
        angle = torch.outer(torch.arange(c["max_position_embeddings"]).float(), yarn_frequencies(c))
        self.register_buffer("cos", angle.cos(), persistent=False)
        self.register_buffer("sin", angle.sin(), persistent=False)

    def forward(self, ids):
        """Hidden states after the last norm, [B, T, H]; logits() of the rows one wants."""
        h, T = F.embedding(ids, self.embed_tokens.weight), ids.shape[1]
        for layer in self.layers:
            h = layer(h, self.cos[:T], self.sin[:T])
        return norm(h, self.norm.weight)

    def logits(self, h):
        return project(h, self.embed_tokens.weight).float()

    def moes(self):
        return [layer.mlp for layer in self.layers if isinstance(layer.mlp, Moe)]

    @torch.no_grad()
    def generate(self, prompts, limit, eos):
        """Greedy, prompts (lists of ids) side by side, left-padded.  -> (ids without eos, whether it ended)."""
        B, L = len(prompts), max(map(len, prompts))
        ids, pos, real = torch.zeros(B, L, dtype=torch.long), torch.zeros(B, L, dtype=torch.long), torch.zeros(B, L, dtype=torch.bool)
        for b, p in enumerate(prompts):
            at = slice(L - len(p), L)
            ids[b, at], pos[b, at], real[b, at] = torch.tensor(p), torch.arange(len(p)), True
        # A padding row must see something, or its softmax is 0/0: let it see itself.
        mask = (torch.ones(L, L, dtype=torch.bool).tril() & real[:, None]) | torch.eye(L, dtype=torch.bool)
        caches, out, ended = [[] for _ in self.layers], [[] for _ in prompts], [False] * B
        for _ in range(limit):
            h = F.embedding(ids, self.embed_tokens.weight)
            for layer, cache in zip(self.layers, caches):
                h = layer(h, self.cos[pos].unsqueeze(1), self.sin[pos].unsqueeze(1), cache, mask.unsqueeze(1))
            nxt = self.logits(norm(h[:, -1], self.norm.weight)).argmax(-1)
            for b, t in enumerate(nxt.tolist()):
                ended[b] = ended[b] or t == eos
                if not ended[b]:
                    out[b].append(t)
            if all(ended):
                break
            ids, pos = nxt[:, None], pos[:, -1:] + 1
            real = torch.cat((real, torch.ones(B, 1, dtype=torch.bool)), 1)
            mask = real[:, None]
        return out, ended


@torch.no_grad()
def look_back(model, heads=3, sharp=9.0, level=0.25):
    """A start for training from nothing: head j of the first layer looks j + 1 tokens back.  Copying takes two steps, to
    mark each token with the one before it and to look for that mark; with the first given, only the second is to be
    found.  The embedding's first number becomes the same for all tokens; from it come a key that only position
    turns, and per head a query turned j + 1 positions back."""
    c, a = model.c, model.layers[0].self_attn
    model.embed_tokens.weight[:, 0] = level
    seen = level / model.embed_tokens.weight.pow(2).mean(1).sqrt().mean()       # that number after the norm
    a.kv_a_proj_with_mqa.weight[a.rank:] = 0
    a.kv_a_proj_with_mqa.weight[a.rank::2, 0] = sharp / seen
    loud = 6.0                                                                  # one channel of the low-rank query
    a.q_a_proj.weight[0] = 0
    a.q_a_proj.weight[0, 0] = loud / seen
    channel = loud / ((c["q_lora_rank"] - 1 + loud ** 2) / c["q_lora_rank"]) ** 0.5
    turn = yarn_frequencies(c)
    for j in range(heads):
        query = a.q_b_proj.weight.view(a.heads, a.nope + a.rope, -1)[j, a.nope:]
        query.zero_()
        query[0::2, 0] = sharp * torch.cos((j + 1) * turn) / channel
        query[1::2, 0] = -sharp * torch.sin((j + 1) * turn) / channel


# ---- Hugging Face's format --------------------------------------------------------------------

def to_hf(state):
    out = {}
    for name, value in state.items():
        if name == "embed_tokens.weight":
            out["model." + name] = out["lm_head.weight"] = value
        elif name.endswith((".mlp.up", ".mlp.down")):
            base, kind = name.rsplit(".", 1)
            names = ("gate_proj", "up_proj") if kind == "up" else ("down_proj",)
            for e, expert in enumerate(value):
                for part, proj in zip(expert.chunk(len(names), -1), names):
                    out[f"model.{base}.experts.{e}.{proj}.weight"] = part.t()
        else:
            out["model." + name] = value
    return {k: v.detach().to(torch.bfloat16).contiguous().clone() for k, v in out.items()}


def from_hf(tensors, c):
    t, E = {k: v.float() for k, v in tensors.items()}, c["n_routed_experts"]
    out = {}
    for name in Model(c).state_dict():
        if name.endswith((".mlp.up", ".mlp.down")):
            base, kind = name.rsplit(".", 1)
            names = ("gate_proj", "up_proj") if kind == "up" else ("down_proj",)
            out[name] = torch.stack([torch.cat([t[f"model.{base}.experts.{e}.{p}.weight"].t() for p in names], -1) for e in range(E)])
        else:
            out[name] = t["model." + name]
    return out


def save(state, c, path, tokenizer):
    from safetensors.torch import save_file
    os.makedirs(path, exist_ok=True)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(f"{tokenizer}/{name}", path)
    with open(path + "/config.json", "w") as f:
        json.dump(c, f, indent=1)
        f.write("\n")
    with open(path + "/generation_config.json", "w") as f:
        json.dump({"bos_token_id": c["bos_token_id"], "eos_token_id": c["eos_token_id"], "do_sample": False}, f, indent=1)
        f.write("\n")
    save_file(to_hf(state), path + "/model.safetensors.part", metadata={"format": "pt"})
    os.chmod(path + "/model.safetensors.part", 0o644)
    os.replace(path + "/model.safetensors.part", path + "/model.safetensors")


def load(path):
    from safetensors.torch import load_file
    with open(path + "/config.json") as f:
        c = json.load(f)
    model = Model(c)
    model.load_state_dict(from_hf(load_file(path + "/model.safetensors"), c))
    return model.eval()
