"""Hold a checkpoint and model.py against transformers, in float32: tensors, prompts, logits, greedy answers.

    python check.py MODEL DOCUMENTS_DIR [N]
"""
import sys

import torch
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer

import model as ours
from evaluate import documents
from examples import EOS, EXTRACT, SUMMARIZE, prompt


def main():
    path, directory, n = sys.argv[1], sys.argv[2], int(sys.argv[3]) if len(sys.argv) > 3 else 5
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    ours.COMPUTE = torch.float32
    theirs, info = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, output_loading_info=True)
    print(type(theirs).__name__, {k: v for k, v in info.items() if v} or "every tensor has its place")
    template, tokenizer, mine = AutoTokenizer.from_pretrained(path), Tokenizer.from_file(path + "/tokenizer.json"), ours.load(path)
    extract, summarize, _ = documents(directory)
    eos, worst, scale, differ, positions, same = tokenizer.token_to_id(EOS), 0.0, 0.0, 0, 0, 0
    cases = [(EXTRACT, t) for _, t in extract[:n]] + [(SUMMARIZE, t) for _, t in summarize[:n]]
    for instruction, text in cases:
        rendered = template.apply_chat_template([{"role": "user", "content": f"{instruction}\n\n{text}"}], tokenize=False, add_generation_prompt=True)
        assert rendered == prompt(instruction, text), rendered
        ids = tokenizer.encode(rendered).ids
        assert ids == template(rendered, add_special_tokens=False).input_ids
        answer = mine.generate([ids], 200, eos)[0][0]
        whole = torch.tensor([ids + answer])
        a, b = theirs(whole).logits[0], mine.logits(mine(whole))[0]
        worst, scale = max(worst, (a - b).abs().max().item()), max(scale, a.abs().max().item())
        differ, positions = differ + (a.argmax(-1) != b.argmax(-1)).sum().item(), positions + len(a)
        told = theirs.generate(torch.tensor([ids]), max_new_tokens=200, do_sample=False, eos_token_id=eos, pad_token_id=eos)[0, len(ids):].tolist()
        same += answer == told[:told.index(eos) if eos in told else None]
    print(f"largest difference of a logit {worst:.1e} (logits up to {scale:.0f}); another best token at {differ} of {positions} positions; "
          f"greedy answers equal: {same} of {len(cases)}")


if __name__ == "__main__":
    main()
