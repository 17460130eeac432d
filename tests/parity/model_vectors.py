#!/usr/bin/env python3
"""Log-probs against the committed vectors of transformers (tests/vectors/make_model_vectors.py), f32, in both ways: all
prompt, and a prompt followed by generated positions.

    model_vectors.py LOGPROBS-PROGRAM VECTORS-FOLDER"""
import json
import os
import sys

try:
    import numpy as np
except ImportError:
    print("numpy is not here: skipped")
    sys.exit(77)

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import make_checkpoint
import model_parity


def main():
    program, root = sys.argv[1:3]
    bad, names = [], sorted(os.listdir(root))
    for name in names:
        folder = os.path.join(root, name)
        expected = make_checkpoint.read_safetensors(os.path.join(folder, "expected.safetensors"))["logprobs"]
        with open(os.path.join(folder, "expected.json")) as file:
            case = json.load(file)
        lines = [(len(case["ids"]), case["ids"]), (case["prompt"], case["ids"])]
        for (prompt, _), got in zip(lines, model_parity.engine(program, folder, "f32", 2, 0, lines)):
            diff = np.abs(got - expected).max()
            ordered = np.sort(expected, -1)
            clear = ordered[:, -1] - ordered[:, -2] > model_parity.GREEDY_MARGIN
            same = (got.argmax(-1) == expected.argmax(-1))[clear].all()
            print(f"{name}, {prompt} of {len(got)} positions as prompt: worst {diff:.2e} (bar {model_parity.F32_BAR}), "
                  f"greedy {'equal' if same else 'differs'} at {clear.sum()} clear positions ({case['made_with']})")
            if not diff <= model_parity.F32_BAR or not same:
                bad.append(name)
    sys.exit(1 if bad or not names else 0)


if __name__ == "__main__":
    main()
