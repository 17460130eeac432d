"""A DeepSeek-V2 forward pass in numpy float64, written from the mathematics: the oracle of the parity tests.

It reads a checkpoint (make_checkpoint.read) and gives log-probs for every position.  It knows nothing of
caches, blocks, shards or forms: attention is computed in the expanded form over all earlier positions at once."""
import math

import numpy as np


def rope_parameters(config):
    """(base, yarn or None) from either style of config.json; absent keys as DeepSeek's code takes them."""
    scaling = config.get("rope_parameters") or config.get("rope_scaling") or {}
    base = (config.get("rope_parameters") or {}).get("rope_theta", config.get("rope_theta", 10000.0))
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    return base, scaling if kind == "yarn" else None


def amplitude(factor, mscale):
    return 1.0 if factor <= 1 else 0.1 * mscale * math.log(factor) + 1.0


def rope(config):
    """inv_freq [d/2], the factor of cos and sin, the scale of the softmax."""
    d = config["qk_rope_head_dim"]
    base, yarn = rope_parameters(config)
    inv = base ** (-np.arange(0, d, 2, dtype=np.float64) / d)
    scale = (config["qk_nope_head_dim"] + d) ** -0.5
    if not yarn:
        return inv, 1.0, scale
    factor, original = yarn["factor"], yarn.get("original_max_position_embeddings", 4096)

    def correction(turns):
        return d * math.log(original / (turns * 2 * math.pi)) / (2 * math.log(base))

    low = max(math.floor(correction(yarn.get("beta_fast", 32))), 0)
    high = min(math.ceil(correction(yarn.get("beta_slow", 1))), d - 1)
    if low == high:
        high += 0.001
    ramp = np.clip((np.arange(d // 2) - low) / (high - low), 0, 1)
    inv = inv / factor * ramp + inv * (1 - ramp)
    all_dim = yarn.get("mscale_all_dim", 0)
    if all_dim:
        scale *= amplitude(factor, all_dim) ** 2
    return inv, amplitude(factor, yarn.get("mscale", 1)) / amplitude(factor, all_dim), scale


def rms(x, gain, eps):
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + eps) * gain


def silu(z):
    return z / (1 + np.exp(-z))


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def rotate(x, cosine, sine):
    """Pairs (2i, 2i+1) of the last axis."""
    out = np.empty_like(x)
    out[..., 0::2] = x[..., 0::2] * cosine - x[..., 1::2] * sine
    out[..., 1::2] = x[..., 0::2] * sine + x[..., 1::2] * cosine
    return out


def attend(config, w, prefix, x):
    n, dn, dr, dv = (config[k] for k in ("num_attention_heads", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim"))
    r, T = config["kv_lora_rank"], len(x)
    get = lambda name: w[prefix + "self_attn." + name + ".weight"]
    if config.get("q_lora_rank"):
        q = rms(x @ get("q_a_proj").T, get("q_a_layernorm"), 1e-6) @ get("q_b_proj").T
    else:
        q = x @ get("q_proj").T
    q = q.reshape(T, n, dn + dr)
    kv = x @ get("kv_a_proj_with_mqa").T
    inv, mult, scale = rope(config)
    angle = np.arange(T)[:, None] * inv
    cosine, sine = np.cos(angle) * mult, np.sin(angle) * mult
    key_rope = rotate(kv[:, r:], cosine, sine)
    expanded = (rms(kv[:, :r], get("kv_a_layernorm"), 1e-6) @ get("kv_b_proj").T).reshape(T, n, dn + dv)
    query_rope = rotate(q[..., dn:], cosine[:, None], sine[:, None])
    scores = np.einsum("tnd,snd->nts", q[..., :dn], expanded[..., :dn]) + np.einsum("tnd,sd->nts", query_rope, key_rope)
    scores = np.where(np.tril(np.ones((T, T), bool)), scores * scale, -np.inf)
    out = np.einsum("nts,snd->tnd", softmax(scores), expanded[..., dn:]).reshape(T, n * dv)
    return out @ get("o_proj").T


def mlp(w, prefix, x):
    get = lambda name: w[prefix + name + ".weight"]
    return (silu(x @ get("gate_proj").T) * (x @ get("up_proj").T)) @ get("down_proj").T


def route(config, score):
    """Chosen experts and weights of one row's softmaxed scores, and how near the choice was to another one."""
    k, E = config["num_experts_per_tok"], len(score)
    allowed, margin = np.ones(E, bool), np.inf
    if config.get("topk_method") == "group_limited_greedy":
        groups, keep = config["n_group"], config["topk_group"]
        best = score.reshape(groups, -1).max(-1)
        order = np.argsort(-best, kind="stable")
        if keep < groups:
            margin = math.log(best[order[keep - 1]] / best[order[keep]])
        allowed = np.isin(np.arange(E) // (E // groups), order[:keep])
    order = [e for e in np.argsort(-score, kind="stable") if allowed[e]]
    if len(order) > k:
        margin = min(margin, math.log(score[order[k - 1]] / score[order[k]]))
    chosen = sorted(order[:k])
    weight = score[chosen]
    if config.get("norm_topk_prob") and k > 1:
        weight = weight / (weight.sum() + 1e-20)
    else:
        weight = weight * config.get("routed_scaling_factor", 1.0)
    return chosen, weight, margin


def experts(config, w, prefix, x):
    score = softmax(x @ w[prefix + "gate.weight"].T)
    out, margins = np.zeros_like(x), np.full(len(x), np.inf)
    for t in range(len(x)):
        chosen, weight, margins[t] = route(config, score[t])
        for e, by in zip(chosen, weight):
            out[t] += by * mlp(w, f"{prefix}experts.{e}.", x[t:t + 1])[0]
    if config.get("n_shared_experts"):
        out += mlp(w, prefix + "shared_experts.", x)
    return out, margins


def forward(config, w, ids):
    """log-probs [T, V], and for each position the smallest log-margin of any of its router choices."""
    eps, x = config.get("rms_norm_eps", 1e-6), w["model.embed_tokens.weight"][ids]
    margin = np.full(len(ids), np.inf)
    for layer in range(config["num_hidden_layers"]):
        prefix = f"model.layers.{layer}."
        x = x + attend(config, w, prefix, rms(x, w[prefix + "input_layernorm.weight"], eps))
        u = rms(x, w[prefix + "post_attention_layernorm.weight"], eps)
        if (config.get("n_routed_experts") and layer >= config.get("first_k_dense_replace", 0)
                and layer % config.get("moe_layer_freq", 1) == 0):
            y, m = experts(config, w, prefix + "mlp.", u)
            margin = np.minimum(margin, m)
        else:
            y = mlp(w, prefix + "mlp.", u)
        x = x + y
    head = w["model.embed_tokens.weight" if config.get("tie_word_embeddings") else "lm_head.weight"]
    logits = rms(x, w["model.norm.weight"], eps) @ head.T
    top = logits.max(-1, keepdims=True)
    return logits - top - np.log(np.exp(logits - top).sum(-1, keepdims=True)), margin
