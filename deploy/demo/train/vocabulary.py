"""A byte-level BPE vocabulary for the demo's text, in the format of DeepSeek-V2's tokenizer.

    python vocabulary.py LIKE_DIR OUT_DIR [SIZE]

Pre-tokenizer, decoder and chat template are those of the tokenizer in LIKE_DIR (DeepSeek-V2's own, or the demo's);
the vocabulary is learned from the training side of the corpus: the 243 bytes that UTF-8 can have, then merges, then
the two control tokens.  The same corpus gives the same vocabulary.
"""
import json
import os
import sys

from tokenizers import Tokenizer
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.trainers import BpeTrainer

from corpus import WORK
from examples import BOS, EOS, EXTRACT, EXTRACT_OTHERS, SUMMARIZE, SUMMARIZE_OTHERS, answer

ENTRIES, DESCRIPTIONS, INSTRUCTIONS = 12_000, 14_000, 300
TOKEN_CHARS_MAX = 20


def byte_names():
    """How a byte-level vocabulary spells each byte, in the order of bytes."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    spare = iter(range(0x100, 0x200))
    names = [chr(b) if b in printable else chr(next(spare)) for b in range(256)]
    assert sorted(names) == sorted(ByteLevel.alphabet())
    return names


def text():
    with open(f"{WORK}/corpus.json") as f:
        corpus = json.load(f)
    for _, truth, entry in corpus["entries"]["train"][:ENTRIES]:
        yield entry
        yield answer(truth)
    for _, _, synopsis, body in corpus["descriptions"]["train"][:DESCRIPTIONS]:
        yield body[:1000]
        yield synopsis
    for instruction in [EXTRACT, SUMMARIZE, *EXTRACT_OTHERS, *SUMMARIZE_OTHERS] * INSTRUCTIONS:
        yield f"User: {instruction}\n\nAssistant:"


def main():
    like, out, size = sys.argv[1], sys.argv[2], int(sys.argv[3]) if len(sys.argv) > 3 else 2048
    with open(f"{like}/tokenizer.json") as f:
        spec = json.load(f)
    spec["added_tokens"], spec["model"]["vocab"], spec["model"]["merges"] = [], {}, []
    tokenizer = Tokenizer.from_str(json.dumps(spec))
    # UTF-8 never has the bytes C0, C1 and F5 to FF.
    alphabet = [name for b, name in enumerate(byte_names()) if b not in (0xC0, 0xC1) and b < 0xF5]
    tokenizer.train_from_iterator(text(), BpeTrainer(vocab_size=size - 2, initial_alphabet=alphabet, max_token_length=TOKEN_CHARS_MAX, show_progress=False))
    learned = json.loads(tokenizer.to_str())
    by_id = sorted(learned["model"]["vocab"], key=learned["model"]["vocab"].get)
    bytes_first = sorted(t for t in by_id if len(t) == 1) + [t for t in by_id if len(t) > 1]
    learned["model"]["vocab"] = {t: i for i, t in enumerate(bytes_first)}
    learned["added_tokens"] = [{"id": size - 2 + i, "content": t, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
                               for i, t in enumerate((BOS, EOS))]
    assert len(bytes_first) == size - 2, f"the text gave only {len(bytes_first)} tokens"
    os.makedirs(out, exist_ok=True)
    with open(f"{out}/tokenizer.json", "w") as f:
        json.dump(learned, f, ensure_ascii=False)
    with open(f"{like}/tokenizer_config.json") as f:
        config = json.load(f)
    config["model_max_length"] = 4096
    with open(f"{out}/tokenizer_config.json", "w") as f:
        json.dump(config, f, ensure_ascii=False, indent=1)
    print(size, "tokens;", len(Tokenizer.from_file(f"{out}/tokenizer.json").encode(f"{EXTRACT}\n\n").ids), "in the usual instruction")


if __name__ == "__main__":
    main()
